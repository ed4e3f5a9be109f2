"""A run on disk: settings, metrics, checkpoints and a usage log in one folder; killed at any moment, it continues exactly.

run.json         what was asked for; a resumed run must ask for the same, or for more steps
metrics.jsonl    one line per optimizer step, and one per evaluation
checkpoint.pt    the whole state after some step
report.md, .json what limits the result, once the run is over and was evaluated
log.jsonl        when the run was started, resumed, stopped and finished, and with which versions
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ..errors import InputError, first_line
from ..files.atomic import atomic_path
from ..files.locks import exclusive_lock
from ..files.provenance import provenance
from ..files.torch_file import load_whole
from ..method.attach import Attachment
from ..method.pair import ROLES, Role
from ..storage.renames import checkpoint_fields, record_fields, run_fields
from .growing_file import GrowingFile
from .loss_history import LossHistory
from .recipes import fitted_expert_steps, fitted_warmup
from .report import Outcome
from .scores import Evaluation
from .settings import TrainSettings
from .state import RunState

_RANGE = ", which an expert's own noise levels now decide unless sigma_min 0 and sigma_max 1 are set,"
MEANINGS = {
    "base: encoders": ", a digest of the encoders' files and of --dtype",
    "pair: controller_dim": ", the width of the network of a pair that has_controller,",
    "training: sigma_min": _RANGE,
    "training: sigma_max": _RANGE,
}
"""What is added to names of settings that tell nobody what to change."""


class RunDirectory:
    """The folder of one run.

    Attributes:
        is_over: whether the training that came to its end here left nothing to do: all steps are done, or it stopped early.
        loss_history: losses so far, for pictures while the run is at work.
        former_steps: how many steps the run was to have before it was opened with more; None where it was not.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.is_over = False
        self.former_steps: int | None = None
        self.settings_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoint_file = self.path / "checkpoint.pt"
        self.log_file = self.path / "log.jsonl"
        self.report_file = self.path / "report.md"
        self.loss_history = LossHistory(self._metrics())

    @contextmanager
    def opened(self, asked_for: Mapping[str, object], is_resumed: bool) -> Iterator[None]:
        """Writes down what was asked for, or checks a resumed run against it, and keeps other processes out until the body ends.

        A resumed run may ask for more steps than before, and then its learning rate follows the new length.

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
        has_steps = self._has_steps()
        if not is_resumed and has_steps:
            raise InputError(
                f"{self.path} already holds a run: add --resume to continue it (in Python is_resumed=True), or choose another output."
            )
        if not has_steps:  # what failed before its first step may be asked for otherwise
            self._write_settings(wanted)
            self.log("started")
            return
        begun, self.former_steps = _lengthened(self._begun(), wanted)
        # another recipe changes much else, which says less than its name: a blank in front sorts it first
        named = ({" recipe": (asked.get("training") or {}).get("recipe"), **asked} for asked in (begun, wanted))
        difference = _difference(*named)
        if difference is not None:
            name, before, now = difference
            raise InputError(
                f"{self.path} was started with another {name}{MEANINGS.get(name, '')} ({_short(before)}, now {_short(now)}): "
                "use the same settings and data, or start afresh with another output."
            )
        if self.former_steps is not None:
            self._write_settings(wanted)
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
                    f"{self.checkpoint_file} could not be written completely (is the disk full? {first_line(error)}): "
                    "free some space, then resume the run."
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

    def lengthenings(self) -> list[dict[str, int]]:
        """Where the run was given more steps: the `step` it was at, and the numbers of steps `before` and `after`."""
        lose = "what is known of when the run was started, stopped and given more steps"
        events = [record for record in GrowingFile(self.log_file, _log_record, lose).appended()[1] if record["event"] == "lengthened"]
        return [{name: event[name] for name in ("step", "before", "after")} for event in events]

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

    def begun_pair(self) -> Mapping[str, object]:
        """Fields of the pair that the run here was begun with; see `begun_fields`."""
        return self.begun_fields("pair")

    def begun_fields(self, part: str) -> Mapping[str, object]:
        """What the run here was begun with, of 'pair' or 'training'; none where no step was made, or where `opened` will refuse it."""
        try:
            fields = self._begun().get(part) if self._has_steps() else None
        except InputError:
            return {}
        return fields if isinstance(fields, dict) else {}

    def _has_steps(self) -> bool:
        return self.checkpoint_file.exists() or bool(self._records())

    def _begun(self) -> dict[str, object]:
        try:
            return run_fields(json.loads(self.settings_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            if self.settings_file.exists() and self.checkpoint_file.exists():
                advice = "put an undamaged copy there, or start afresh with another output"
                raise InputError(f"{self.settings_file} is damaged: {advice}.") from error
            raise InputError(f"{self.path} holds no run to resume: start it without --resume (in Python without is_resumed).") from error

    def _write_settings(self, wanted: Mapping[str, object]) -> None:
        with atomic_path(self.settings_file) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")

    def _metrics(self) -> GrowingFile:
        return GrowingFile(self.metrics_file, _metrics_record, "the curves of the steps so far and nothing else")

    def _records(self) -> list[dict]:
        return self._metrics().appended()[1]

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


def _lengthened(begun: Mapping[str, object], wanted: Mapping[str, object]) -> tuple[Mapping[str, object], int | None]:
    """What was asked for, as if for as many steps as now, and how many it were, where now it is more.

    Warm-up goes along as far as it differs only because a fifth of more steps is more, and so do the turns of experts.
    """
    before, now = (asked.get("training") if isinstance(asked.get("training"), dict) else {} for asked in (begun, wanted))
    steps, more = before.get("steps"), now.get("steps")
    if not (isinstance(steps, int) and isinstance(more, int) and steps < more):
        return begun, None
    longer = {**before, "steps": more}
    for name, fitted in (("warmup_steps", fitted_warmup), ("expert_steps", fitted_expert_steps)):
        wanted_now = now.get(name, getattr(TrainSettings, name))
        if before.get(name, getattr(TrainSettings, name)) == fitted(wanted_now, steps):
            longer.pop(name, None)
            longer |= {name: now[name]} if name in now else {}
    return {**begun, "training": longer}, steps


def _metrics_record(line: bytes) -> dict:
    """Of a step or an evaluation; raises what comes of a damaged line."""
    record = record_fields(json.loads(line))
    if type(record["step"]) is not int:
        raise ValueError(f"step is {record['step']!r}")
    if "evaluation" in record:
        losses = [side.single_loss for side in Evaluation.from_record(record).sides.values()]
    else:
        losses = [record["loss"], ROLES.index(record["role"])]
    _ = [float(number) for number in (record["step"], *losses)]
    return record


def _log_record(line: bytes) -> dict:
    """Of an event; raises what comes of a damaged line."""
    record = json.loads(line)
    if record["event"] == "lengthened" and not all(type(record[name]) is int for name in ("step", "before", "after")):
        raise ValueError("its steps are no numbers")
    return record


def _difference(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, object, object] | None:
    """Name and both values of the first entry that differs, within tables too."""
    for key in sorted({*before, *now}):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        inner = _difference(one, other) if isinstance(one, dict) and isinstance(other, dict) else None
        return (key.strip(), one, other) if inner is None else (f"{key}: {inner[0]}", *inner[1:])
    return None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
