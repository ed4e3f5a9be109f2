"""Jobs that wait for one another, over processes of one thread each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process

import torch

from ..errors import InputError

OnJob = Callable[[str, int, int], None]
"""Called with the name of a finished job, how many are done, and how many there are."""


@dataclass(frozen=True)
class Job:
    """Something to do once the jobs it waits for are done. `work` must be picklable."""

    work: Callable[[], None]
    waits_for: frozenset[str] = field(default_factory=frozenset)


def run_jobs(jobs: Mapping[str, Job], num_workers: int, on_job: OnJob | None = None) -> None:
    """Does all jobs. What does not depend on a failed one is still done.

    Raises:
        InputError: jobs failed with one; names the first.
    """
    total, running, failures = len(jobs), {}, {}
    waiting, done = dict(jobs), set()
    with _executor(num_workers) as pool:
        try:
            while waiting or running:
                ready = [name for name, job in waiting.items() if job.waits_for <= done]
                for name in ready[: num_workers - len(running)]:
                    running[pool.submit(_single_threaded, waiting.pop(name).work)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    problem = future.exception()
                    if isinstance(problem, InputError):
                        failures[name] = problem
                        continue
                    if problem is not None:
                        raise problem
                    done.add(name)
                    if on_job is not None:
                        on_job(name, len(done), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        name, problem = next(iter(failures.items()))
        left = f", and {len(waiting)} jobs wait for it or others" if waiting else ""
        raise InputError(f"{len(failures)} of {total} jobs failed{left}; the first, {name}: {problem}") from problem


def _single_threaded(work: Callable[[], None]) -> None:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work()
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def _executor(num_workers: int) -> Iterator[Executor]:
    """Processes; one worker works in this one."""
    if num_workers == 1:
        yield _Here()
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_leave_with_parent) as pool:
        yield pool


def _leave_with_parent() -> None:
    """Ends this worker when its parent is killed: it would train on beside the command that continues the run."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Here(Executor):
    """Runs each call at once, in this process."""

    def submit(self, call: Callable[..., None], /, *arguments: object) -> Future:
        future: Future = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future
