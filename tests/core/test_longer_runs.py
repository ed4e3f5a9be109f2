"""A run that is resumed with more steps continues, on the schedule of its new length, and says so."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import TinyBase, all_items, is_same, make_pair

from dualreal_core.api import TrainingData, train_pair
from dualreal_core.bases import load_base
from dualreal_core.cli import main
from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.storage import read_header
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import DUALREAL, fit_warmup, with_train
from dualreal_core.training.run import RunDirectory, run_training
from dualreal_core.training.settings import TrainSettings

SHORT = TrainSettings(steps=4, warmup_steps=1, learning_rate=0.01, frozen_adapter_dropout=0.3)
LONG = replace(SHORT, steps=8)


class Session:
    """One process at a run whose settings are written as `Training` writes them."""

    def __init__(self, folder: Path, settings: TrainSettings) -> None:
        self.base, self.settings, self.directory, self.notes = TinyBase("wan", 2), settings, RunDirectory(folder), []
        self.pair = make_pair(self.base, num_groups=2)

    def run(self, is_resumed: bool = True, stop_after: int | None = None, **asked_for: object) -> list[int]:
        """The steps that were done."""
        asked_for = {"training": asdict(self.settings), **asked_for}
        with self.directory.opened(asked_for, is_resumed), Attachment(self.base.transformer, self.pair) as attachment:
            steps = run_training(
                self.base, attachment, all_items(), self.settings, self.directory, is_resumed, stop_after, on_note=self.notes.append
            )
            return [done.step for done in steps]


def result(folder: Path) -> tuple[dict, list[dict]]:
    return torch.load(folder / "checkpoint.pt", weights_only=True), RunDirectory(folder).metrics()


@pytest.mark.parametrize("stop_after", [2, None])
def test_more_steps_continue_the_run_and_say_so(tmp_path, stop_after):
    Session(tmp_path, SHORT).run(False, stop_after)
    begun = stop_after or SHORT.steps
    session = Session(tmp_path, LONG)
    assert session.run() == list(range(begun + 1, LONG.steps + 1)) and session.directory.is_over
    (note,) = session.notes
    assert note == (
        f"Continues a run of 4 steps after its step {begun}, up to step 8: "
        f"the learning rate follows the new length from step {begun + 1} on."
    )
    rates = [record["learning_rate"] for record in session.directory.metrics()]
    expected = [(SHORT if step < begun else LONG).schedule(step) * SHORT.learning_rate for step in range(LONG.steps)]
    assert rates == pytest.approx(expected)
    assert session.directory.lengthenings() == [{"step": begun, "before": 4, "after": 8}]


def test_a_longer_run_that_is_interrupted_resumes_exactly(tmp_path):
    for name, stops in (("whole", [None]), ("stopped", [1, 2, None])):
        Session(tmp_path / name, SHORT).run(False)
        notes = []
        for stop_after in stops:
            session = Session(tmp_path / name, LONG)
            session.run(stop_after=stop_after)
            notes.append(len(session.notes))
        assert notes == [1, *[0] * (len(stops) - 1)], "said once"
    assert is_same(result(tmp_path / "whole"), result(tmp_path / "stopped"))


def test_it_can_be_made_longer_twice(tmp_path):
    for settings in (SHORT, LONG, replace(LONG, steps=9)):
        session = Session(tmp_path, settings)
        session.run(is_resumed=settings is not SHORT)
    assert [record["step"] for record in session.directory.metrics()] == list(range(1, 10))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (replace(SHORT, steps=3), "training: steps"),
        (replace(LONG, seed=1), "training: seed"),
        (replace(LONG, learning_rate=0.02), "training: learning_rate"),
        (replace(LONG, warmup_steps=0), "training: warmup_steps"),
    ],
)
def test_fewer_steps_and_other_settings_are_refused(tmp_path, settings, named):
    Session(tmp_path, replace(SHORT, warmup_steps=1)).run(False, stop_after=2)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match=f"was started with another {named} "):
        Session(tmp_path, settings).run()
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_other_data_are_refused_with_more_steps_too(tmp_path):
    Session(tmp_path, SHORT).run(False, datasets="one")
    with pytest.raises(InputError, match="was started with another datasets"):
        Session(tmp_path, LONG).run(datasets="two")


def test_warm_up_that_was_cut_to_a_fifth_may_grow_with_the_steps(tmp_path):
    short, long = (fit_warmup(with_train(DUALREAL, steps=steps, evaluate_every=0))[0].train for steps in (5, 15))
    assert (short.warmup_steps, long.warmup_steps) == (1, 3)
    Session(tmp_path, short).run(False)
    assert Session(tmp_path, long).run() == list(range(6, 16))


@pytest.fixture
def trial(tmp_path) -> Path:
    made = Trial("tam", "box")
    made.write_photos(tmp_path / "photos")
    made.write_clips(tmp_path / "clips")
    return tmp_path


def test_the_command_continues_with_more_steps(trial, capsys):
    data = ["--identity", str(trial / "photos"), "--motion", str(trial / "clips"), "--out", str(trial / "pair.safetensors")]
    data.append("--no-prompt-gate")
    assert main(["train", *data, "--steps", "2"]) == 0
    capsys.readouterr()
    assert main(["train", *data, "--steps", "3", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "Continues a run of 2 steps after its step 2, up to step 3: the learning rate follows the new length from step 3 on." in said
    training = read_header(trial / "pair.safetensors")["training"]
    assert training["steps"] == 3 and training["lengthened"] == [{"step": 2, "before": 2, "after": 3}]
    assert [json.loads(line)["event"] for line in (trial / "pair.safetensors.run" / "log.jsonl").read_text().splitlines()] == [
        "started", "finished", "resumed", "lengthened", "finished",
    ]  # fmt: skip


def test_the_library_resumes(trial):
    data, out = TrainingData(trial / "photos", trial / "clips"), trial / "pair.safetensors"
    recipe = with_train(replace(DUALREAL, prompt_gate=False), steps=2, evaluate_every=0)
    with pytest.raises(InputError, match=r"holds no run to resume: .* without is_resumed"):
        train_pair(load_base("toyworld"), data, out, recipe, is_resumed=True)
    train_pair(load_base("toyworld"), data, out, recipe)
    with pytest.raises(InputError, match="is_resumed=True"):
        train_pair(load_base("toyworld"), data, out, recipe)
    train_pair(load_base("toyworld"), data, out, with_train(recipe, steps=3), is_resumed=True)
    assert read_header(out)["training"]["steps"] == 3
