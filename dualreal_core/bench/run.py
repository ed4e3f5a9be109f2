"""A benchmark's folder, and the jobs that fill it: every piece once, every cell as soon as its pieces are there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..files.atomic import atomic_path
from .cells import Cell, Protocol, Results
from .jobs import Job, OnJob, run_jobs
from .pieces import Runs, unique


class Folder:
    """Where a benchmark lies: `runs` (training), `cells` (results) and what was asked for."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.runs, self.results = Runs(self.path / "runs"), Results(self.path / "cells")
        self._note = self.path / "benchmark.json"

    def begin(self, protocol: Protocol) -> None:
        """Notes what holds for all cells, or checks it, so that a folder never mixes results of different recipes.

        Raises:
            InputError: the folder holds results of another recipe, number of steps, sampler or method.
        """
        wanted = json.loads(json.dumps(asdict(protocol)))
        if self._note.exists():
            if self.protocol != wanted:
                raise InputError(f"{self.path} holds results of other settings or of an earlier method: choose another --out.")
            return
        with atomic_path(self._note) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")

    @property
    def protocol(self) -> dict:
        """What was asked for.

        Raises:
            InputError: the folder holds no benchmark.
        """
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"{self.path} holds no benchmark: run it first, without --report-only.") from error

    @property
    def asked_for(self) -> Protocol:
        """The protocol as an object.

        Raises:
            InputError: the folder holds no benchmark, or one of a version whose recipes had other settings.
        """
        try:
            return Protocol.from_note(self.protocol)
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.path} holds results of an earlier version's settings: choose another --out.") from error


def run_cells(folder: Folder, cells: Sequence[Cell], protocol: Protocol, num_workers: int, on_job: OnJob | None = None) -> None:
    """Makes all cells that are not done, and the pieces they need.

    Raises:
        InputError: see `run_jobs`.
    """
    run_jobs(_jobs(folder, cells, protocol), num_workers, on_job)


def _jobs(folder: Folder, cells: Sequence[Cell], protocol: Protocol) -> dict[str, Job]:
    open_cells = [cell for cell in cells if not folder.results.is_done(cell, protocol)]
    needed = unique([piece for cell in open_cells for piece in cell.plan(protocol.recipe)])
    open_pieces = [piece for piece in needed if not folder.runs.is_done(piece)]
    names = frozenset(f"train {piece.key}" for piece in open_pieces)
    jobs = {
        f"train {piece.key}": Job(partial(folder.runs.train, piece), names & {f"train {need.key}" for need in piece.needs})
        for piece in open_pieces
    }
    for cell in open_cells:
        subject = cell.subject
        waits_for = names & {f"train {piece.key}" for piece in cell.plan(protocol.recipe)}
        work = partial(folder.results.make, cell, folder.runs, protocol)
        jobs[f"measure {cell.row} on {subject.identity}-{subject.motion}-{subject.seed}"] = Job(work, waits_for)
    return jobs
