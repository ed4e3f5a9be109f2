"""A run on disk that is stopped, interrupted or killed ends bit for bit like one that was not."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny import OTHER_FAMILIES, TinyBase, all_items, is_same, make_pair

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.training.loop import StepResult
from dualreal_core.training.run import RunDirectory, run_training
from dualreal_core.training.settings import TrainSettings

STEPS = 7
SETTINGS = {
    "steps": STEPS,
    "warmup_steps": 2,
    "motion_batch": 2,
    "accumulation": 2,
    "frozen_adapter_dropout": 0.3,
    "condition_drop": 0.3,
    "preservation_ratio": 0.5,
    "learning_rate": 0.01,
}


class Session:
    """One process: a fresh base and an untrained pair, over a run directory."""

    def __init__(self, folder: Path, family: str = "wan", **settings: object) -> None:
        self.base = TinyBase(family, 2)
        self.pair = make_pair(self.base, num_groups=2)
        self.settings = TrainSettings(**{**SETTINGS, **settings})
        self.directory = RunDirectory(folder)

    def run(self, is_resumed: bool = False, stop_after: int | None = None, save_every: int = 100, on_note: Callable | None = None):
        opened = self.directory.opened(asdict(self.settings), is_resumed)
        with opened, Attachment(self.base.transformer, self.pair) as attachment:
            yield from run_training(
                self.base, attachment, all_items(), self.settings, self.directory, is_resumed, stop_after, save_every, on_note=on_note
            )

    def result(self) -> tuple[dict, list[dict], str]:
        """Weights, metrics as read, metrics as written."""
        return dict(self.pair.state_dict()), self.directory.metrics(), self.directory.metrics_file.read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = {}
    for family in ("cogvideox", "wan", *OTHER_FAMILIES):
        session = Session(tmp_path_factory.mktemp("whole") / family, family)
        done = list(session.run())
        assert [asdict(one) for one in done] == session.directory.metrics() and len(done) == STEPS
        results[family] = session.result()
    return results


def check_end(folder: Path, expected: tuple, family: str = "wan") -> None:
    session = Session(folder, family)
    list(session.run(is_resumed=True))
    assert is_same(session.result(), expected)


@pytest.mark.parametrize(
    ("stop_after", "family"), [*product(range(1, STEPS), ("cogvideox", "wan")), *((STEPS // 2, family) for family in OTHER_FAMILIES)]
)
def test_stopped_after_some_steps(tmp_path, uninterrupted, family, stop_after):
    done = list(Session(tmp_path, family).run(stop_after=stop_after))
    assert len(done) == stop_after
    check_end(tmp_path, uninterrupted[family], family)


def test_stopped_after_every_step(tmp_path, uninterrupted):
    for step in range(STEPS):
        assert [one.step for one in Session(tmp_path).run(is_resumed=step > 0, stop_after=1)] == [step + 1]
    check_end(tmp_path, uninterrupted["wan"])
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events == ["started", "stopped", *["resumed", "stopped"] * (STEPS - 2), "resumed", "finished", "resumed", "finished"]


@pytest.mark.parametrize("stop_after", [1, 4])
def test_abandoned_between_steps(tmp_path, uninterrupted, stop_after):
    steps = Session(tmp_path).run()
    for _ in range(stop_after):
        next(steps)
    steps.close()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == stop_after
    check_end(tmp_path, uninterrupted["wan"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("call", [0, 1, 4, 5, 13])
def test_interrupted_within_a_step(tmp_path, uninterrupted, call, error):
    """Each step makes two calls; random numbers that the broken step drew must not be lost."""
    session, calls = Session(tmp_path), []
    predict = session.base.predict

    def interrupted(*args: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) - 1 == call:
            raise error
        return predict(*args)

    session.base.predict = interrupted
    with pytest.raises(error):
        list(session.run())
    check_end(tmp_path, uninterrupted["wan"])


@pytest.mark.parametrize("save_every", [2, 100])
@pytest.mark.parametrize("part", ["identity", "motion", "controller"])
def test_interrupted_between_optimizers(tmp_path, uninterrupted, monkeypatch, part, save_every):
    """Half a step is applied: it must not be saved."""
    session, calls = Session(tmp_path), []
    parameters = session.pair.controller_parameters() if part == "controller" else session.pair.role_parameters(part)
    step = torch.optim.AdamW.step

    def interrupted(self: torch.optim.AdamW, *args: object) -> None:
        if self.param_groups[0]["params"][0] is parameters[0]:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
        step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(session.run(save_every=save_every))
    monkeypatch.undo()
    check_end(tmp_path, uninterrupted["wan"])


@pytest.mark.parametrize("save_every", [1, 2, 3, 100])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_killed(tmp_path, uninterrupted, step, save_every):
    """What a killed process leaves: the checkpoint of some steps ago, later metrics, the last of them cut, temporary files."""
    steps = Session(tmp_path / "alive").run(save_every=save_every)
    for _ in range(step):
        next(steps)
    shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    steps.close()
    assert (tmp_path / "killed" / "checkpoint.pt").exists() == (step >= save_every)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "ro')
    (tmp_path / "killed" / ".checkpoint.0123.pt").write_bytes(b"half")
    check_end(tmp_path / "killed", uninterrupted["wan"])


def test_the_losses_shown_are_those_of_the_resumed_run(tmp_path, uninterrupted):
    """Those after its checkpoint are forgotten, although they were shown before."""
    steps = Session(tmp_path / "alive").run(save_every=2)
    for _ in range(5):
        next(steps)
    shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    steps.close()
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "ro')
    session = Session(tmp_path / "killed")

    def shown() -> list[tuple[float, str, float]]:
        trained = session.directory.loss_history.read().trained
        return sorted((step, role, loss) for role, points in trained.items() for step, loss in zip(*points, strict=True))

    expected = [(one["step"], one["role"], one["loss"]) for one in uninterrupted["wan"][1]]
    assert [shown(), *(shown() for _ in session.run(is_resumed=True))] == [expected[:last] for last in (5, 5, 6, 7)]


def test_finished_run_resumes_to_itself(tmp_path, uninterrupted):
    list(Session(tmp_path).run())
    session = Session(tmp_path)
    assert list(session.run(is_resumed=True)) == [] and is_same(session.result(), uninterrupted["wan"])


def test_the_directory_does_not_change_the_result(tmp_path, uninterrupted):
    session = Session(tmp_path)
    list(session.run(save_every=1))
    assert is_same(session.result(), uninterrupted["wan"])


@pytest.mark.parametrize(
    "change", [{"steps": 6}, {"learning_rate": 2e-2}, {"seed": 1}, {"optimizer": "adamw8bit"}, {"identity_learning_rate": 1e-3}], ids=str
)
def test_other_settings_are_refused(tmp_path, change):
    list(Session(tmp_path).run(stop_after=2))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match=rf"was started with another {next(iter(change))} \(.*, now .*\): use the same settings"):
        list(Session(tmp_path, **change).run(is_resumed=True))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_what_differs_is_named_within_tables_too(tmp_path):
    directory = RunDirectory(tmp_path)
    with directory.opened({"training": {"steps": 1, "seed": 0}}, False):
        directory.add_metrics(asdict(StepResult(1, "motion", 0.5, None, 1.0, 1e-3)))
    with pytest.raises(InputError, match=r"was started with another training: seed \(0, now 1\)"), directory.opened(
        {"training": {"steps": 1, "seed": 1}}, True
    ):
        pass


def test_another_recipe_is_named_before_what_it_changes(tmp_path):
    directory = RunDirectory(tmp_path)
    with directory.opened({"pair": {"alpha": 32.0}, "training": {"recipe": "dualreal"}}, False):
        directory.add_metrics(asdict(StepResult(1, "motion", 0.5, None, 1.0, 1e-3)))
    now = {"pair": {"alpha": 16.0}, "training": {"recipe": "paper"}}
    with pytest.raises(InputError, match=r'was started with another recipe \("dualreal", now "paper"\)'), directory.opened(now, True):
        pass


@pytest.mark.parametrize("is_resumed", [False, True])
def test_what_failed_before_its_first_step_may_be_asked_for_otherwise(tmp_path, uninterrupted, is_resumed):
    broken = Session(tmp_path, optimizer="adamw8bit")
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        list(broken.run())
    session = Session(tmp_path)
    list(session.run(is_resumed))
    assert is_same(session.result(), uninterrupted["wan"])
    with pytest.raises(InputError, match="already holds a run"):
        list(Session(tmp_path).run())


def test_directory_in_use_is_refused(tmp_path):
    list(Session(tmp_path).run(stop_after=2))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match="already holds a run: add --resume to continue it"):
        list(Session(tmp_path).run())
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


@pytest.mark.parametrize("content", [None, "", "{", "words"])
def test_nothing_to_resume(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match="holds no run to resume: start it without --resume"):
        list(Session(tmp_path).run(is_resumed=True))


def damaged(path: Path) -> dict[str, object]:
    """Contents of a checkpoint that cannot be restored, by name."""
    whole = path.read_bytes()
    saved = torch.load(path, weights_only=True)
    return {
        "empty": b"",
        "words": b"just some words\n" * 50,
        "cut": whole[: len(whole) // 2],
        "cut at the end": whole[:-20],
        "a list": [1, 2],
        "none": None,
        "no generator": {key: value for key, value in saved.items() if key != "generator"},
        "other generator": {**saved, "generator": torch.zeros(3, dtype=torch.uint8)},
        "no optimizer": {**saved, "optimizers": {}},
        "other optimizer": {**saved, "optimizers": dict.fromkeys(saved["optimizers"], 3)},
        "no pair": {**saved, "pair": {}},
        "other pair": {**saved, "pair": dict.fromkeys(saved["pair"], torch.zeros(2))},
    }


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "words",
        "cut",
        "cut at the end",
        "a list",
        "none",
        "no generator",
        "other generator",
        "no optimizer",
        "other optimizer",
        "no pair",
        "other pair",
    ],
)
def test_damaged_checkpoint(tmp_path, name):
    list(Session(tmp_path).run(stop_after=2))
    path = tmp_path / "checkpoint.pt"
    content = damaged(path)[name]
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged: start afresh with another output"):
        list(Session(tmp_path).run(is_resumed=True))
    assert path.read_bytes() == before


def test_flipped_bits_do_not_pass(tmp_path):
    """A flip is noticed, or it lies in the filling between the records and changes nothing."""
    list(Session(tmp_path).run(stop_after=2))
    path = tmp_path / "checkpoint.pt"
    whole, saved, num_noticed = path.read_bytes(), torch.load(path, weights_only=True)["pair"], 0
    for position in range(len(whole) // 30, len(whole), len(whole) // 10):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        session = Session(tmp_path)
        try:
            list(session.run(is_resumed=True, stop_after=0))
            assert is_same(dict(session.pair.state_dict()), dict(saved))
        except InputError as error:
            assert "checkpoint.pt is damaged" in str(error)
            num_noticed += 1
    assert num_noticed > 5


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, uninterrupted, number):
    steps = Session(tmp_path).run(save_every=2)
    for _ in range(3):
        next(steps)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def refuse(content: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        if number == errno.ENOSPC:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        raise OSError(number, "refused")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(InputError, match=r"checkpoint\.pt could not be written"):
        list(steps)
    monkeypatch.undo()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".checkpoint*"))
    check_end(tmp_path, uninterrupted["wan"])


@pytest.fixture
def stopped(tmp_path) -> Session:
    session = Session(tmp_path / "run")
    list(session.run(stop_after=4))
    return session


WITHOUT_A_LOSS = (
    b'{"step": 2}\n',
    b'{"step": 2, "role": "motion"}\n',
    b'{"step": 2, "role": "motion", "loss": "low"}\n',
    b'{"step": 2, "role": "motion", "loss": 1' + b"0" * 400 + b"}\n",
    b'{"step": 2, "role": ["motion"], "loss": 1.0}\n',
)


def test_a_damaged_line_amid_the_metrics_is_named(stopped):
    file = stopped.directory.metrics_file
    lines = file.read_bytes().splitlines(keepends=True)
    for damage in (b"{\xff\n", b"[1]\n", b"{}\n", b'{"step": "2"}\n', b"[" * 100_000 + b"\n", *WITHOUT_A_LOSS):
        file.write_bytes(b"".join([lines[0], damage, *lines[2:]]))
        with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2"):
            stopped.directory.metrics()
        file.write_bytes(b"".join([*lines, damage]))  # the last one, of a killed run
        assert len(stopped.directory.metrics()) == 4


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b'{"training": 3, "pair": ', b"[" * 100_000])
def test_a_damaged_run_file_is_one_sentence(stopped, content):
    stopped.directory.settings_file.write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json is damaged: .* start afresh"):
        list(stopped.run(is_resumed=True))
