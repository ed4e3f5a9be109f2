"""The loss picture of a run at work: every line of the metrics is read once, and the picture is that of the whole file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from dualreal_core.errors import InputError
from dualreal_core.plots import loss_curves
from dualreal_core.plots.curves import draw_losses
from dualreal_core.training.run import RunDirectory
from dualreal_core.training.scores import Evaluation, SideScores


def write(directory: RunDirectory, first: int, last: int) -> None:
    """Steps of both sides, losses that are no numbers among them, and an evaluation every 20 steps."""
    random = Random(first)
    for step in range(first, last + 1):
        loss = math.nan if step % 50 == 7 else 1 / step + 0.1 * random.random()
        directory.add_metrics({"step": step, "role": random.choice(["identity", "motion"]), "loss": loss, "preservation_loss": None})
        if step % 20 == 0:
            side = SideScores(0.5, 0.4 + 1 / step, 1.0, None, 0.3)
            directory.add_metrics(Evaluation(step, {"identity": side, "motion": side}).record())


def picture(directory: RunDirectory) -> Image.Image:
    losses = directory.loss_history.read()
    return draw_losses(losses.trained, "Loss", losses.evaluated)


def picture_of_whole_file(folder: Path) -> Image.Image:
    directory = RunDirectory(folder)
    return loss_curves(directory.metrics(), "Loss", directory.evaluated_losses())


@pytest.fixture
def num_parsed(monkeypatch) -> list[int]:
    """One entry per text that was read as JSON."""
    parsed, loads = [], json.loads

    def counted(text, **options):
        parsed.append(len(text))
        return loads(text, **options)

    monkeypatch.setattr(json, "loads", counted)
    return parsed


def test_the_lines_read_grow_with_the_run_and_not_with_the_pictures(tmp_path, num_parsed):
    directory = RunDirectory(tmp_path)
    for first in range(1, 400, 10):
        write(directory, first, first + 9)
        for _ in range(2):
            directory.loss_history.read()
    assert len(num_parsed) == len(directory.metrics_file.read_bytes().splitlines()) == 420


def test_the_picture_is_that_of_the_whole_file_every_time(tmp_path):
    directory = RunDirectory(tmp_path)
    assert picture(directory).tobytes() == picture_of_whole_file(tmp_path).tobytes(), "nothing is there yet"
    for first, last in ((1, 1), (2, 19), (20, 20), (21, 140)):
        write(directory, first, last)
        assert picture(directory).tobytes() == picture_of_whole_file(tmp_path).tobytes(), last


@pytest.mark.parametrize("length", [1, 30, 90, -1])
def test_a_torn_last_line_waits_for_its_end(tmp_path, length):
    directory = RunDirectory(tmp_path)
    write(directory, 1, 30)
    directory.loss_history.read()
    line = b'{"step": 31, "role": "motion", "loss": 0.5, "preservation_loss": null, "gradient_norm": 1.0, "learning_rate": 0.001}\n'
    for part in (line[:length], line[length:]):
        with directory.metrics_file.open("ab") as stream:
            stream.write(part)
        assert picture(directory).tobytes() == picture_of_whole_file(tmp_path).tobytes()
    write(directory, 32, 60)
    assert picture(directory).tobytes() == picture_of_whole_file(tmp_path).tobytes()
    assert sum(len(steps) for steps, _ in directory.loss_history.trained.values()) == 60


@pytest.mark.parametrize("is_read_between", [False, True])
@pytest.mark.parametrize("num_kept", [0, 1, 25, 41])
def test_a_file_that_was_cut_back_is_followed_from_there(tmp_path, num_kept, is_read_between):
    """As a resumed run does, which then goes on to longer than before."""
    directory = RunDirectory(tmp_path)
    write(directory, 1, 40)
    directory.loss_history.read()
    lines = directory.metrics_file.read_bytes().splitlines(keepends=True)
    directory.metrics_file.write_bytes(b"".join(lines[:num_kept]))
    if is_read_between:
        assert picture(directory).tobytes() == picture_of_whole_file(tmp_path).tobytes()
    write(directory, num_kept + 1, 90)
    assert picture(directory).tobytes() == picture_of_whole_file(tmp_path).tobytes()
    directory.metrics_file.unlink()
    assert picture(directory).tobytes() == loss_curves([], "Loss").tobytes()


def test_a_damaged_line_is_named_by_its_place_in_the_file(tmp_path):
    directory = RunDirectory(tmp_path)
    write(directory, 1, 10)
    directory.loss_history.read()
    with directory.metrics_file.open("ab") as stream:
        stream.write(b'{"step": 11, "ro\n')
    directory.loss_history.read()
    write(directory, 12, 13)
    for _ in range(2):
        with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 11: "):
            directory.loss_history.read()
