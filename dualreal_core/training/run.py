"""A run on disk: settings, metrics, checkpoints and a usage log in one folder; killed at any moment, it continues exactly.

run.json         what was asked for; a resumed run must ask for the same
metrics.jsonl    one line per optimizer step, and one per evaluation
checkpoint.pt    the whole state after some step
report.md, .json what limits the result, once the run is over and was evaluated
log.jsonl        when the run was started, resumed, stopped and finished, and with which versions
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from ..bases import Base
from ..dataset import PreparedItem
from ..errors import InputError
from ..files.atomic import atomic_path
from ..files.locks import exclusive_lock
from ..files.provenance import provenance
from ..files.torch_file import load_whole
from ..method.attach import Attachment
from ..method.pair import ROLES, Role
from ..storage.renames import checkpoint_fields, record_fields, run_fields
from .evaluation import Evaluator
from .loop import StepResult, train
from .report import Outcome
from .scores import Evaluation
from .settings import TrainSettings
from .state import RunState
from .stopping import best_of, evaluate_if_due, is_over
from .validation import split_items


class RunDirectory:
    """The folder of one run.

    Attributes:
        is_over: whether the training that came to its end here left nothing to do: all steps are done, or it stopped early.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.is_over = False
        self.settings_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.log_file = self.path / "log.jsonl"
        self.report_file = self.path / "report.md"

    @contextmanager
    def opened(self, asked_for: Mapping[str, object], is_resumed: bool) -> Iterator[None]:
        """Writes down what was asked for, or checks a resumed run against it, and keeps other processes out until the body ends.

        Raises:
            InputError: a fresh run meets an old one, a resumed one finds none or asks for something else, or another process
                is at work on the run.
        """
        if is_resumed:
            self._begun()  # before a folder is made for the lock
        with exclusive_lock(self.path):
            self._begin(json.loads(json.dumps(asked_for)), is_resumed)
            yield

    def _begin(self, wanted: Mapping[str, object], is_resumed: bool) -> None:
        has_steps = self.checkpoint_file.exists() or bool(self._records())
        if not is_resumed and has_steps:
            raise InputError(f"{self.path} already holds a run: add --resume to continue it, or choose another output.")
        if not has_steps:  # what failed before its first step may be asked for otherwise
            with atomic_path(self.settings_file) as temporary:
                temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
            self.log("started")
            return
        begun = self._begun()
        # another recipe changes much else, which says less than its name: a blank in front sorts it first
        named = ({" recipe": (asked.get("training") or {}).get("recipe"), **asked} for asked in (begun, wanted))
        difference = _difference(*named)
        if difference is not None:
            name, before, now = difference
            raise InputError(
                f"{self.path} was started with another {name} ({_short(before)}, now {_short(now)}): "
                "use the same settings and data, or start afresh with another output."
            )
        self.log("resumed")

    def log(self, event: str, **details: object) -> None:
        """Appends one line to the usage log."""
        self._append(self.log_file, {"event": event, **provenance(), **details})

    def save(self, state: RunState, attachment: Attachment) -> None:
        """Writes the checkpoint."""
        with atomic_path(self.checkpoint_file) as temporary:
            try:
                torch.save(state.state_dict(attachment.pair), temporary)
            except RuntimeError as error:  # torch reports a full disk as such
                raise InputError(
                    f"{self.checkpoint_file} could not be written completely (is the disk full?): free some space, then resume the run."
                ) from error

    def load(self, state: RunState, attachment: Attachment) -> None:
        """Restores the checkpoint, if there is one, and drops the metrics of steps after it.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if not self.checkpoint_file.exists():
            self._keep_metrics(0, ())
            return
        try:
            state.load_state_dict(checkpoint_fields(load_whole(self.checkpoint_file)), attachment.pair)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.checkpoint_file} is damaged: start afresh with another output.") from error
        self._keep_metrics(state.step, state.evaluations)

    def metrics(self) -> list[dict]:
        """Records of all steps so far."""
        return [record for record in self._records() if "evaluation" not in record]

    def evaluations(self) -> list[Evaluation]:
        """All evaluations so far."""
        return [Evaluation.from_record(record) for record in self._records() if "evaluation" in record]

    def evaluated_losses(self) -> dict[Role, list[tuple[int, float]]]:
        """(step, loss) of each side's evaluations, with the other side off."""
        done = self.evaluations()
        return {role: [(one.step, one.sides[role].single_loss) for one in done if role in one.sides] for role in ROLES}

    def report(self) -> list[str]:
        """Lines of the report; none before the run is over, or without evaluations."""
        return self.report_file.read_text(encoding="utf-8").splitlines() if self.report_file.exists() else []

    def add_metrics(self, record: Mapping[str, object]) -> None:
        """Appends the record of one step, or of one evaluation."""
        self._append(self.metrics_file, record)

    def write_report(self, outcome: Outcome) -> None:
        """Writes the report, for people and for programs."""
        texts = {".md": "\n".join(outcome.lines()), ".json": json.dumps(outcome.as_dict(), indent=1)}
        for suffix, text in texts.items():
            with atomic_path(self.report_file.with_suffix(suffix)) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")

    def _begun(self) -> dict[str, object]:
        try:
            return run_fields(json.loads(self.settings_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            if self.settings_file.exists() and self.checkpoint_file.exists():
                advice = "put an undamaged copy there, or start afresh with another output"
                raise InputError(f"{self.settings_file} is damaged: {advice}.") from error
            raise InputError(f"{self.path} holds no run to resume: start it without --resume.") from error

    def _records(self) -> list[dict]:
        if not self.metrics_file.exists():
            return []
        records: list[dict] = []
        lines = self.metrics_file.read_bytes().splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                records.append(_record(line))
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
                if number == len(lines):  # of a killed run
                    break
                raise InputError(
                    f"{self.metrics_file} is damaged in line {number}: put an undamaged copy there, or delete it, which loses the curves "
                    "of the steps so far and nothing else."
                ) from error
        return records

    def _keep_metrics(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        """Records up to a step; the checkpoint's evaluations, as lines that were written last can be lost with the power."""
        steps = [record for record in self.metrics() if record["step"] <= step]
        kept = sorted([*steps, *(one.record() for one in evaluations)], key=lambda record: record["step"])
        with atomic_path(self.metrics_file) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def _append(self, file: Path, record: Mapping[str, object]) -> None:
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise InputError(f"{file} could not be written ({reason}): free some space, then resume the run.") from error


def run_training(
    base: Base,
    attachment: Attachment,
    items: Mapping[Role, Sequence[PreparedItem]],
    settings: TrainSettings,
    directory: RunDirectory,
    is_resumed: bool = False,
    stop_after: int | None = None,
    save_every: int = 100,
    on_evaluation: Callable[[Evaluation], None] | None = None,
) -> Iterator[StepResult]:
    """`train` with files: restores the last checkpoint, evaluates, writes metrics and checkpoints, saves on every way out.

    Once the run is over, the pair is the result: the last state, or the best one where that is kept.

    Args:
        stop_after: stop once so many steps were done in this call.
        on_evaluation: called after each evaluation, before its step is yielded.

    Raises:
        DivergedError: after the last good state was saved.
        InputError: a file cannot be read or written.
    """
    splits = {role: split_items(items[role], role, settings.validation_split, settings.seed) for role in items}
    trained = {role: split.trained for role, split in splits.items()}
    evaluator = Evaluator(base, attachment, splits, settings)
    state = RunState.start(attachment.pair, settings)
    if is_resumed:
        directory.load(state, attachment)

    def evaluate() -> None:
        evaluation = evaluate_if_due(evaluator, attachment, settings, state)
        if evaluation is not None:
            directory.add_metrics(evaluation.record())
            if on_evaluation is not None:
                on_evaluation(evaluation)

    last_step = settings.steps if stop_after is None else min(settings.steps, state.step + stop_after)
    saved = state.step, len(state.evaluations)
    try:
        evaluate()
        if state.step < last_step and not is_over(state, settings):
            for done in train(base, attachment, trained, settings, state):
                directory.add_metrics(asdict(done))
                evaluate()
                if state.step % save_every == 0:
                    directory.save(state, attachment)
                    saved = state.step, len(state.evaluations)
                yield done
                if state.step >= last_step or is_over(state, settings):
                    break
    finally:
        if (state.step, len(state.evaluations)) > saved and not state.is_torn:
            directory.save(state, attachment)
    directory.is_over = is_over(state, settings)
    if directory.is_over:
        if state.best is not None:
            attachment.pair.load_state_dict(state.best)
        if state.evaluations:
            kept = best_of(state.evaluations) if settings.save_best else state.evaluations[-1]
            directory.write_report(Outcome(state.step, settings.steps, kept, state.evaluations, splits))
    directory.log("finished" if directory.is_over else "stopped", step=state.step)


def _difference(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, object, object] | None:
    """Name and both values of the first entry that differs, within tables too."""
    for key in sorted({*before, *now}):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        inner = _difference(one, other) if isinstance(one, dict) and isinstance(other, dict) else None
        return (key.strip(), one, other) if inner is None else (f"{key}: {inner[0]}", *inner[1:])
    return None


def _record(line: bytes) -> dict:
    """A line of the metrics; raises what comes of a damaged one."""
    record = record_fields(json.loads(line))
    if type(record["step"]) is not int:
        raise ValueError(f"step is {record['step']!r}")
    if "evaluation" in record:
        Evaluation.from_record(record)
    return record


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
