"""A checkpoint that cannot be written when training ends before its time: what is lost is said, and why training ended."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from test_resume import Session
from tiny import TinyBase, all_items

from dualreal_core.api import Training, TrainingData, train_pair
from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import finish
from dualreal_core.cli import main
from dualreal_core.commands import train as train_command
from dualreal_core.dataset import PreparedSet
from dualreal_core.errors import InputError
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import DUALREAL, with_train

FULL = "checkpoint.pt could not be written because the disk is full"


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run_out_of_memory() -> None:
    raise RuntimeError("CUDA out of memory")


def refuse_the_video() -> None:
    raise InputError("sample.mp4 could not be written; choose another folder.")


ENDS: dict[str, tuple[Callable[[], None], str]] = {
    "Ctrl-C": (interrupt, "Training was interrupted."),
    "SIGTERM": (terminate, "Training was interrupted."),
    "error": (run_out_of_memory, "Training had ended: RuntimeError: CUDA out of memory"),
    "complaint": (refuse_the_video, "Training had ended: sample.mp4 could not be written; choose another folder."),
}


@pytest.fixture
def trial(tmp_path) -> Path:
    made = Trial("tam", "box")
    made.write_photos(tmp_path / "photos")
    made.write_clips(tmp_path / "clips")
    return tmp_path


@pytest.fixture
def disk(monkeypatch) -> Callable[[int], None]:
    """Lets so many checkpoints be written, and no more."""

    def fill_after(count: int) -> None:
        write, written = torch.save, []

        def save(content: object, path: Path) -> None:
            if len(written) == count:
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(path)
            write(content, path)

        monkeypatch.setattr(torch, "save", save)

    return fill_after


@pytest.mark.parametrize(("end", "num_written"), [*((end, 0) for end in ENDS), ("Ctrl-C", 1)])
def test_the_command_says_what_is_lost(trial, capsys, monkeypatch, disk, end, num_written):
    lost = ("There is no good checkpoint: steps 1 to 3 are lost.", "The last good checkpoint reaches step 2: step 3 is lost.")[num_written]
    leave, reason = ENDS[end]
    disk(num_written)
    monkeypatch.setattr(train_command, "sample", lambda *arguments: leave())
    data = ["--identity", str(trial / "photos"), "--motion", str(trial / "clips"), "--out", str(trial / "pair.safetensors")]
    samples = ["--steps", "9", "--sample-every", "3", "--sample-prompt", "a figure *"]
    assert main(["train", *data, *samples, "--save-every", "2" if num_written else "100"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert FULL in message and lost in message and message.endswith(reason), message
    assert str(trial / "pair.safetensors.run") in message


def test_a_second_interrupt_while_saving_loses_no_word(trial, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "sample", lambda *arguments: interrupt())
    monkeypatch.setattr(torch, "save", lambda *arguments: interrupt())
    data = ["--identity", str(trial / "photos"), "--motion", str(trial / "clips"), "--out", str(trial / "pair.safetensors")]
    assert main(["train", *data, "--steps", "9", "--sample-every", "2", "--sample-prompt", "a figure *"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "checkpoint.pt could not be written because that was interrupted in turn. There is no good checkpoint" in message


def test_an_error_within_a_step_is_not_lost_behind_the_full_disk(tmp_path, disk):
    session, calls = Session(tmp_path), []
    predict = session.base.predict

    def fail_later(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 12:
            run_out_of_memory()
        return predict(*arguments)

    session.base.predict = fail_later
    disk(0)
    with pytest.raises(InputError, match=f"{FULL}.* are lost. Training had ended: RuntimeError: CUDA out of memory$") as caught:
        list(session.run())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_checkpoint_that_fails_on_its_day_is_told_of_once(tmp_path, disk):
    disk(1)
    with pytest.raises(InputError) as caught:
        list(Session(tmp_path).run(save_every=2))
    assert str(caught.value).count("could not be written") == 1
    assert str(caught.value).endswith("The last good checkpoint reaches step 2: steps 3 to 4 are lost.")


def test_half_a_step_that_cannot_be_saved_is_told(tmp_path, monkeypatch):
    session, notes, calls = Session(tmp_path), [], []
    step = torch.optim.AdamW.step

    def torn(self: torch.optim.AdamW, *arguments: object) -> None:
        calls.append(1)
        if len(calls) > 6:
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", torn)
    with pytest.raises(KeyboardInterrupt):
        list(session.run(save_every=2, on_note=notes.append))
    assert notes == [
        "Training ended within an optimizer step, and half a step cannot be saved. "
        "The last good checkpoint reaches step 2: step 3 is lost."
    ]


def test_the_library_says_what_is_lost(trial, monkeypatch, disk):
    data = TrainingData(trial / "photos", trial / "clips")
    recipe = with_train(DUALREAL, steps=5, evaluate_every=0)
    base, calls = load_base("toyworld"), []
    predict = base.predict

    def interrupted(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            interrupt()
        return predict(*arguments)

    base.predict = interrupted
    disk(0)
    with pytest.raises(InputError, match=f"{FULL}.*There is no good checkpoint: .* lost. Training was interrupted"):
        train_pair(base, data, trial / "pair.safetensors", recipe)
    assert not any(module._forward_hooks for module in base.transformer.modules()), "the pair is still attached"


def test_the_benchmark_says_what_is_lost(tmp_path, disk):
    data = {role: PreparedSet(items, ()) for role, items in all_items().items()}
    training = Training(TinyBase("wan", 2), data, with_train(DUALREAL, steps=5, evaluate_every=0), tmp_path)
    disk(0)
    with pytest.raises(InputError, match=f"{FULL}.*step 1 is lost. Training was interrupted"):
        finish(training, lambda done, total: interrupt())


def test_steps_that_are_left_early_are_saved_at_once(tmp_path, disk):
    disk(0)
    with pytest.raises(InputError, match="step 1 is lost"), closing(Session(tmp_path).run()) as steps:
        next(steps)
