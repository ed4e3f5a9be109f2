"""Steps to quality: scores of a recipe after several numbers of steps, from the states of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from ..api import Training
from ..bases import load_base
from ..errors import InputError
from ..files.atomic import atomic_path
from ..plots import save
from .cells import Cell, Protocol, sample_videos
from .experiment import load_trial
from .jobs import Job, OnJob, run_jobs
from .plot import step_curves
from .rows import Subject, find_row
from .run import Folder

COMPARED = ("ours", "paper")
"""Rows of one joint run each: whose steps are counted, and whose last score is to be reached."""
SCORES = ("identity", "motion")


@dataclass(frozen=True)
class Curve:
    """The run of a row on one subject, measured after each number of steps in `points`, which ascend."""

    cell: Cell
    points: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its files."""
        subject = self.cell.subject
        return f"{self.cell.row}-{subject.identity}-{subject.motion}-{subject.seed}"


def run_curves(
    folder: Folder, subjects: Sequence[Subject], points: Sequence[int], protocol: Protocol, num_workers: int, on_job: OnJob | None = None
) -> list[str]:
    """Trains and measures what is missing, writes steps.md and steps-SCORE.png, and returns the report's lines.

    Raises:
        InputError: see `run_jobs`; or a run went further than a point that was not measured.
    """
    curves = [Curve(Cell(row, subject), tuple(sorted(set(points)))) for subject in subjects for row in COMPARED]
    jobs = {f"curve {curve.name}": Job(partial(measure_curve, folder.path, curve, protocol)) for curve in curves}
    run_jobs(jobs, num_workers, on_job)
    records = [(curve.cell.row, point, read_point(folder.path, curve, point)) for curve in curves for point in curve.points]
    means = {
        score: {
            row: [(point, fmean(scores[score] for name, at, scores in records if (name, at) == (row, point))) for point in curves[0].points]
            for row in COMPARED
        }
        for score in SCORES
    }
    for score in SCORES:
        save(folder.path / f"steps-{score}.png", step_curves(means[score], f"{score.capitalize()} score by training step", COMPARED[0]))
    lines = report(means, len(subjects))
    with atomic_path(folder.path / "steps.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def measure_curve(path: Path, curve: Curve, protocol: Protocol) -> None:
    """Trains one run from point to point and measures it at each; a killed one continues.

    Raises:
        InputError: the run that is there is of what the row once was, or went further than a point that was not measured.
    """
    row, (piece,) = find_row(curve.cell.row), curve.cell.plan(protocol.recipe)
    missing = [point for point in curve.points if not _is_measured(_file(path, curve, point), piece.key)]
    if not missing:
        return
    base, run, trial = load_base("toyworld"), path / "curves" / curve.name, curve.cell.trial
    training = Training(base, load_trial(base, trial, piece.recipe, run / "references"), piece.recipe, run / "run")
    try:
        for point in missing:
            _advance(training, point)
            training.attachment.detach()
            videos = sample_videos(base, row.assemble([training.pair], row.settings), trial, trial.prompts, protocol)
            training.attachment.attach()
            with atomic_path(_file(path, curve, point)) as temporary:
                temporary.write_text(json.dumps({"made_from": piece.key, **trial.score(videos)}) + "\n", encoding="utf-8")
    finally:
        training.close()


def read_point(path: Path, curve: Curve, point: int) -> dict[str, float]:
    """Scores of a run after `point` steps."""
    return json.loads(_file(path, curve, point).read_text(encoding="utf-8"))


def steps_to_reach(curve: Sequence[tuple[int, float]], goal: float) -> int | None:
    """The first number of steps from which on the score is never below the goal; None where the last is."""
    reached = None
    for step, score in sorted(curve, reverse=True):
        if score < goal:
            break
        reached = step
    return reached


def report(means: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], num_subjects: int) -> list[str]:
    """Markdown: scores by step, and how many steps of the first row reach the last score of the second."""
    first, second = COMPARED
    columns = [(row, score) for row in COMPARED for score in SCORES]
    lines = [
        "# Steps to quality",
        "",
        f"Means over {num_subjects} {'subject' if num_subjects == 1 else 'subjects'}, from the states of one run each. The learning rate "
        "falls to zero at the last step, so that a shorter run would do better at its end than a longer one does on its way.",
        "",
        f"| steps | {' | '.join(f'{row}, {score}' for row, score in columns)} |",
        "| ---: |" + " ---: |" * len(columns),
    ]
    for index, (point, _) in enumerate(means[SCORES[0]][first]):
        lines.append(f"| {point} | " + " | ".join(f"{means[score][row][index][1]:.3f}" for row, score in columns) + " |")
    lines.append("")
    for score in SCORES:
        last, goal = means[score][second][-1]
        steps = steps_to_reach(means[score][first], goal)
        verdict = "was not reached" if steps is None else f"takes {steps} steps, {steps / last:.2f} of them"
        lines.append(f"- {second} reaches {score} {goal:.3f} in {last} steps; by {first} that {verdict}.")
    return lines


def _advance(training: Training, point: int) -> None:
    """Trains until `point`, from the last state that was saved."""
    directory = training.directory
    for _ in training.steps(is_resumed=directory.settings_file.exists(), stop_after=0):  # only restores
        pass
    step = directory.metrics()[-1]["step"] if directory.metrics() else 0
    if step > point:
        raise InputError(f"{directory.path} went {step} steps, beyond {point}, which was not measured: choose another --out for it.")
    for _ in training.steps(is_resumed=True, stop_after=point - step):
        pass


def _is_measured(file: Path, key: str) -> bool:
    """Whether these are scores of the run with that key: a row may change from version to version."""
    return file.exists() and json.loads(file.read_text(encoding="utf-8")).get("made_from") == key


def _file(path: Path, curve: Curve, point: int) -> Path:
    return path / "curves" / curve.name / f"{point}.json"
