"""A benchmark's folder, and the jobs that fill it: every run once, every result as soon as its runs are finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..files.atomic import atomic_path
from .jobs import Job, OnJob, run_jobs
from .results import Case, Protocol, Results
from .runs import Run, Runs, with_needs


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
        wanted = json.loads(json.dumps(asdict(protocol)))
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
        """Makes the results of all cases that are not done, and the runs they need.

        Raises:
            InputError: see `run_jobs`.
        """
        missing = [case for case in cases if not self.results.is_done(case, protocol)]
        needed = with_needs([run for case in missing for run in case.runs(protocol.recipe)])
        unfinished = {run.key: run for run in needed if not self.runs.is_done(run)}

        def waits_for(runs: Sequence[Run]) -> frozenset[str]:
            return frozenset(f"train {run.key}" for run in runs if run.key in unfinished)

        jobs = {f"train {key}": Job(partial(self.runs.train, run), waits_for(run.needs)) for key, run in unfinished.items()}
        for case in missing:
            work = partial(self.results.make, case, self.runs, protocol)
            jobs[f"measure {case.method} on {case.place}"] = Job(work, waits_for(case.runs(protocol.recipe)))
        run_jobs(jobs, num_workers, on_job)
