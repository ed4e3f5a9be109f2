"""Runs that evaluate: the trajectory stays, the best pair is kept, training stops when no side improves, and all of it resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny import TinyBase, all_items, is_same, make_pair

from dualreal_core.cli import main
from dualreal_core.method.attach import Attachment
from dualreal_core.storage import load_pair
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.evaluation import Evaluator
from dualreal_core.training.run import RunDirectory, run_training
from dualreal_core.training.scores import Evaluation, SideScores
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState
from dualreal_core.training.stopping import LEAST_GAIN, best_of, evaluations_at_rest, is_exhausted

STEPS = 9
SETTINGS = {"steps": STEPS, "warmup_steps": 2, "motion_batch": 2, "learning_rate": 0.05, "frozen_adapter_dropout": 0.3}
WATCHED = {"evaluate_every": 2, "validation_split": 2, "save_best": True}


class Session:
    """One process: a fresh base and an untrained pair, over a run directory."""

    def __init__(self, folder: Path, family: str = "wan", **settings: object) -> None:
        self.base = TinyBase(family, 2)
        self.pair = make_pair(self.base, num_groups=2)
        self.settings = TrainSettings(**{**SETTINGS, **settings})
        self.directory = RunDirectory(folder)
        self.seen: dict[int, tuple[Evaluation, dict]] = {}

    def run(self, is_resumed: bool = False, stop_after: int | None = None, save_every: int = 100):
        def evaluated(evaluation: Evaluation) -> None:
            weights = {name: tensor.clone() for name, tensor in self.pair.state_dict().items()}
            self.seen[evaluation.step] = evaluation, weights

        opened = self.directory.opened(asdict(self.settings), is_resumed)
        with opened, Attachment(self.base.transformer, self.pair) as attachment:
            yield from run_training(
                self.base, attachment, all_items(6), self.settings, self.directory, is_resumed, stop_after, save_every, evaluated
            )

    def result(self) -> tuple:
        """Weights, checkpoint, metrics and report."""
        saved = torch.load(self.directory.checkpoint_file, weights_only=True)
        return dict(self.pair.state_dict()), saved, self.directory.metrics_file.read_text(), self.directory.report()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    session = Session(tmp_path_factory.mktemp("whole") / "run", **WATCHED)
    assert len(list(session.run())) == STEPS
    return session.result()


def check_end(folder: Path, expected: tuple) -> None:
    session = Session(folder, **WATCHED)
    list(session.run(is_resumed=True))
    assert is_same(session.result(), expected)


def side(relative: float, **changes: object) -> SideScores:
    return SideScores(**{"loss": relative, "single_loss": relative, "base_loss": 1.0, "train_loss_ratio": None, "leakage": 0.0, **changes})


def history(identity: list[float], motion: list[float]) -> list[Evaluation]:
    return [
        Evaluation(step, {"identity": side(one), "motion": side(other)})
        for step, (one, other) in enumerate(zip(identity, motion, strict=True), 1)
    ]


@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_evaluations_leave_the_trajectory_as_it_is(tmp_path, family):
    plain, watched = Session(tmp_path / "plain", family), Session(tmp_path / "watched", family, evaluate_every=2)
    assert [asdict(done) for done in plain.run()] == [asdict(done) for done in watched.run()]
    assert is_same(dict(plain.pair.state_dict()), dict(watched.pair.state_dict()))
    assert plain.directory.metrics() == watched.directory.metrics()
    assert plain.directory.evaluations() == [] and plain.directory.report() == []
    assert watched.directory.evaluations() == [evaluation for evaluation, _ in watched.seen.values()]
    rings = {role: [(done.step, done.sides[role].single_loss) for done, _ in watched.seen.values()] for role in ("identity", "motion")}
    assert watched.directory.evaluated_losses() == rings
    assert plain.directory.evaluated_losses() == {"identity": [], "motion": []}
    assert list(watched.seen) == [2, 4, 6, 8, 9]


def test_items_held_out_are_never_trained_on(tmp_path, monkeypatch):
    seen, next_batch = set(), RunState.next_batch

    def watching(self, role, items, batch_size):
        batch = next_batch(self, role, items, batch_size)
        seen.update(item.source for item in batch)
        return batch

    monkeypatch.setattr(RunState, "next_batch", watching)
    session = Session(tmp_path, steps=30, evaluate_every=30, validation_split=2)
    list(session.run())
    validation_split = {name for names in json.loads((tmp_path / "report.json").read_text())["validation"].values() for name in names}
    assert len(validation_split) == 4 and len(seen) == 8 and not validation_split & seen


def test_the_best_pair_is_the_result(tmp_path):
    session = Session(tmp_path, learning_rate=0.3, **WATCHED)
    list(session.run())
    best = min(session.seen, key=lambda step: session.seen[step][0].score)
    assert best < STEPS
    assert is_same(dict(session.pair.state_dict()), session.seen[best][1])
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["kept_step"], report["best_step"], report["step"]) == (best, best, STEPS)
    assert any(f"The result is the pair of step {best}" in line for line in session.directory.report())


def test_without_keeping_the_last_pair_is_the_result(tmp_path):
    session = Session(tmp_path, learning_rate=0.3, evaluate_every=2, validation_split=2)
    list(session.run())
    assert is_same(dict(session.pair.state_dict()), session.seen[STEPS][1])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["kept_step"] == STEPS > report["best_step"]


@pytest.mark.parametrize("stop_after", [1, 2, 5, 8])
def test_stopped_after_some_steps(tmp_path, uninterrupted, stop_after):
    session = Session(tmp_path, **WATCHED)
    list(session.run(stop_after=stop_after))
    assert session.directory.report() == [] and not session.directory.is_over
    check_end(tmp_path, uninterrupted)


@pytest.mark.parametrize(("step", "save_every"), [(1, 1), (4, 1), (7, 3), (5, 3)])
def test_killed(tmp_path, uninterrupted, step, save_every):
    """What a killed process leaves: the checkpoint of some steps ago, and later lines in the metrics, the last of them cut."""
    steps = Session(tmp_path / "alive", **WATCHED).run(save_every=save_every)
    for _ in range(step):
        next(steps)
    shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    steps.close()
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 8, "evaluation": {"iden')
    check_end(tmp_path / "killed", uninterrupted)


def test_lines_lost_with_the_power_do_not_keep_a_run_from_its_end(tmp_path, uninterrupted):
    """The checkpoint is on the disk, and the metrics' last lines, the last evaluation among them, are not."""
    list(Session(tmp_path, **WATCHED).run())
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(line + "\n" for line in metrics.read_text().splitlines()[:-2]))
    again = Session(tmp_path, **WATCHED)
    assert list(again.run(is_resumed=True)) == [] and again.directory.is_over
    assert [one.step for one in again.directory.evaluations()] == [2, 4, 6, 8, 9]
    assert is_same(dict(again.pair.state_dict()), uninterrupted[0]) and again.directory.report() == uninterrupted[3]


@pytest.mark.parametrize("call", [1, 3, 5])
def test_interrupted_while_evaluating(tmp_path, uninterrupted, monkeypatch, call):
    calls, evaluate = [], Evaluator.evaluate

    def interrupted(self, step):
        calls.append(step)
        if len(calls) == call:
            raise KeyboardInterrupt
        return evaluate(self, step)

    monkeypatch.setattr(Evaluator, "evaluate", interrupted)
    session = Session(tmp_path, **WATCHED)
    with pytest.raises(KeyboardInterrupt):
        list(session.run())
    assert session.base.transformer.training is False and list(session.seen) == [2, 4, 6, 8, 9][: call - 1]
    check_end(tmp_path, uninterrupted)


def test_stops_early_and_stays_stopped(tmp_path, uninterrupted):
    """At a rate of nearly nothing, no side ever improves."""
    settings = {**WATCHED, "learning_rate": 1e-9, "patience": 2}
    session = Session(tmp_path, **settings)
    assert len(list(session.run())) == 6  # the first evaluation and two more
    assert session.directory.is_over
    assert "Trained 6 of 9 steps, where no side improved any more." in session.directory.report()
    log = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["event"] == "finished"
    again = Session(tmp_path, **settings)
    assert list(again.run(is_resumed=True)) == [] and is_same(again.result(), session.result())


@pytest.mark.parametrize("stop_after", [3, 4, 5])
def test_patience_survives_a_stop(tmp_path, stop_after):
    settings = {**WATCHED, "learning_rate": 1e-9, "patience": 2}
    list(Session(tmp_path, **settings).run(stop_after=stop_after))
    session = Session(tmp_path, **settings)
    assert len(list(session.run(is_resumed=True))) == 6 - stop_after


@pytest.mark.parametrize(
    ("identity", "motion", "is_at_end"),
    [
        ([1, 1, 1], [1, 1, 1], True),
        ([1, 1, 1], [1, 0.9, 0.8], False),
        ([1, 0.9, 0.8], [1, 1, 1], False),
        ([1, 0.9, 0.9, 0.9], [1, 0.9, 1.1, 1.2], True),
        ([1, 1], [1, 1], False),
        ([1, 1 - 0.6 * LEAST_GAIN, 1 - 1.2 * LEAST_GAIN], [1, 1, 1], False),
        ([1, 1 - 0.4 * LEAST_GAIN, 1 - 0.8 * LEAST_GAIN], [1, 1, 1], True),
        ([1, float("nan"), float("nan")], [1, 1, 1], True),
    ],
)
def test_a_side_that_improves_keeps_the_run_alive(identity, motion, is_at_end):
    assert is_exhausted(history(identity, motion), 2) == is_at_end
    assert not is_exhausted(history(identity, motion), 0) and not is_exhausted([], 2)


def test_small_gains_add_up():
    relatives = [1 - 0.4 * LEAST_GAIN * index for index in range(8)]
    assert evaluations_at_rest(history(relatives, relatives), "motion") == 1


def test_the_best_is_the_first_of_the_lowest():
    assert best_of(history([0.9, 0.5, 0.6, 0.5], [0.9, 0.6, 0.5, 0.7])).step == 2
    assert best_of(history([float("nan"), 0.9], [0.1, 0.9])).step == 2


def test_a_single_side_is_judged_alone(tmp_path):
    session = Session(tmp_path, motion_ratio=1.0, **WATCHED)
    list(session.run())
    assert all(list(evaluation.sides) == ["motion"] for evaluation, _ in session.seen.values())
    assert list(json.loads((tmp_path / "report.json").read_text())["measures"]) == ["motion"]


def test_the_command_reports_what_limits(tmp_path, capsys):
    made, out = Trial("tam", "box"), tmp_path / "pair.safetensors"
    made.write_photos(tmp_path / "photos")
    made.write_clips(tmp_path / "clips")
    command = ["train", "--identity", str(tmp_path / "photos"), "--motion", str(tmp_path / "clips"), "--out", str(out)]
    options = ["--steps", "4", "--evaluate-every", "2", "--validation-split", "0.2", "--save-best", "--patience", "5"]
    assert main([*command, *options]) == 0
    shown = capsys.readouterr().out
    report = json.loads((tmp_path / "pair.safetensors.run" / "report.json").read_text())
    assert "# What limits this result" in shown and "held out: 1 of 5 photos" in shown and "held out: 1 of 6 clips" in shown
    assert {("not learned", "identity"), ("not learned", "motion")} <= {(limit["name"], limit["role"]) for limit in report["limits"]}
    _, header = load_pair(out)
    assert header["training"]["kept_step"] == report["kept_step"] and header["training"]["validation_split"] == 0.2
    assert main([*command, "--patience", "-1", "--resume"]) == 2 and "patience is -1" in capsys.readouterr().err


def test_a_training_that_is_left_ends_with_the_interpreter():
    """Its end still tidies up, at a time at which torch aborts the process when it is called."""
    script = """
from tiny import TinyBase, all_items, make_pair
from dualreal_core.method.attach import Attachment
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState
base, settings = TinyBase("wan", 2), TrainSettings(steps=9, warmup_steps=0, motion_batch=2)
pair = make_pair(base, "lora", num_groups=2)
steps = train(base, Attachment(base.transformer, pair), all_items(), settings, RunState.start(pair, settings))
next(steps)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert (done.returncode, done.stderr) == (0, "")
