"""Phases of jobs that do not depend on one another, over processes of one thread each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process

import torch

from ..errors import InputError

Job = Callable[[], None]
"""Something to do; must be picklable where there are several workers."""
OnJob = Callable[[str, InputError | None], None]
"""Called with the name of a finished job, and why it failed."""


def run_jobs(phases: Iterable[Mapping[str, Job]], num_workers: int, on_job: OnJob) -> None:
    """Does all jobs of a phase before it asks for the next one. One worker works in this process."""
    if num_workers == 1:
        for name, job in (named for jobs in phases for named in jobs.items()):
            on_job(name, _attempt(job))
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_leave_with_parent) as pool:
        try:
            for jobs in phases:
                names = {pool.submit(_attempt, job): name for name, job in jobs.items()}
                for future in as_completed(names):
                    on_job(names[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _attempt(job: Job) -> InputError | None:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job()
    except InputError as problem:
        return problem
    finally:
        torch.set_num_threads(num_threads)
    return None


def _leave_with_parent() -> None:
    """Ends this worker when its parent is killed: it would train on beside the command that continues the run."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
