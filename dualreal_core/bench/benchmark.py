"""A benchmark's folder, and the jobs that fill it: every run once, every result as soon as its runs are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..files.atomic import atomic_path
from .jobs import Job, run_jobs
from .registry import BASE
from .results import Case, Protocol, Results
from .runs import Runs, with_needs

OnJob = Callable[[str, int, int], None]
"""Called with the name of a finished job, how many are done, and how many there are."""


class Benchmark:
    """Where a benchmark lies: finished runs, results, and the protocol that holds for all of them."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.runs, self.results = Runs(self.path / "runs"), Results(self.path / "results")
        self._note = self.path / "benchmark.json"

    def begin(self, protocol: Protocol) -> None:
        """Notes the protocol, or checks it, so that a folder never mixes results of different ones.

        Raises:
            InputError: the folder holds results of another recipe, number of steps, sampler or version.
        """
        wanted = protocol.recorded()
        if not self._note.exists():
            with atomic_path(self._note) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        elif json.loads(self._note.read_text(encoding="utf-8")) != wanted:
            raise InputError(f"{self.path} holds results of other settings or of an older version: choose another --out.")

    @property
    def protocol(self) -> Protocol:
        """What was asked for.

        Raises:
            InputError: the folder holds no benchmark, or one of an older version.
        """
        try:
            return Protocol.from_note(json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{self.path} holds no benchmark: run it first, without --report-only.") from error
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.path} holds results of an older version: choose another --out.") from error

    def run(self, cases: Sequence[Case], protocol: Protocol, num_workers: int, on_job: OnJob | None = None) -> None:
        """Makes the results of all cases that are not done, and the runs they need. What needs no failed run is still done.

        Raises:
            InputError: runs or results failed with one; names the first.
        """
        missing = [case for case in cases if not self.results.is_done(case, protocol)]
        needed = with_needs([run for case in missing for run in case.runs(protocol.recipe)])
        unfinished = [run for run in needed if not self.runs.is_done(run)]
        total, done, failures = len(unfinished) + len(missing), [], {}

        def phases() -> Iterator[dict[str, Job]]:
            for has_needs in (False, True):  # what a run needs has no needs itself
                ready = [run for run in unfinished if bool(run.needs) == has_needs and all(map(self.runs.is_done, run.needs))]
                yield {f"train {run.key}": partial(self.runs.train, run) for run in ready}
            ready = [case for case in missing if all(map(self.runs.is_done, case.runs(protocol.recipe)))]
            for is_base in (True, False):  # others are held against its frames
                own = [case for case in ready if (case.method == BASE) == is_base]
                yield {f"measure {case.method} on {case.place}": partial(self.results.make, case, self.runs, protocol) for case in own}

        def keep(name: str, problem: InputError | None) -> None:
            if problem is not None:
                failures[name] = problem
                return
            done.append(name)
            if on_job is not None:
                on_job(name, len(done), total)

        run_jobs(phases(), num_workers, keep)
        if failures:
            num_left = total - len(done) - len(failures)
            left = f", and {num_left} jobs wait for it or others" if num_left else ""
            name, problem = next(iter(failures.items()))
            raise InputError(f"{len(failures)} of {total} jobs failed{left}; the first, {name}: {problem}") from problem
