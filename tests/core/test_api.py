"""The library as its users call it: paths as text, seeds in settings, sizes that do not fit, and what a pair says of their machine."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dualreal_core.api import Training, TrainingData, generate, prepare_data, train_pair
from dualreal_core.bases import load_base
from dualreal_core.errors import InputError
from dualreal_core.sampling import SamplingSettings
from dualreal_core.storage import read_header
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import DUALREAL, with_train

RECIPE = with_train(replace(DUALREAL, prompt_gate=False), steps=2, warmup_steps=0, evaluate_every=0)
SETTINGS = SamplingSettings(num_frames=4, height=32, width=32, num_steps=2, guidance_scale=1.0, seed=7)


@pytest.fixture
def data(tmp_path) -> TrainingData:
    made = Trial("tam", "box")
    made.write_photos(tmp_path / "photos")
    made.write_clips(tmp_path / "clips")
    return TrainingData(tmp_path / "photos", tmp_path / "clips", prompt_identity="dog *", prompt_motion="box")


def test_paths_may_be_text(data, tmp_path):
    data = replace(data, identity=str(data.identity), motion=str(data.motion))
    train_pair(load_base("toyworld"), data, str(tmp_path / "pair.safetensors"), RECIPE, str(tmp_path / "run"))
    assert read_header(str(tmp_path / "pair.safetensors"))["training"]["steps"] == 2
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_the_seed_of_the_settings_counts():
    base = load_base("toyworld")
    by_settings = generate(base, None, "a figure", settings=SETTINGS)
    assert torch.equal(by_settings, generate(base, None, "a figure", seed=7, settings=replace(SETTINGS, seed=1)))
    assert not torch.equal(by_settings, generate(base, None, "a figure", seed=0, settings=SETTINGS))


@pytest.mark.parametrize("change", [{"width": 36}, {"height": 30}])
def test_a_size_that_does_not_suit_the_base_is_refused(change):
    with pytest.raises(InputError, match=r"do not fit toyworld: choose .* multiples of 8"):
        generate(load_base("toyworld"), None, "a figure", settings=replace(SETTINGS, **change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fps": -1.0}, "fps is -1: it must be a finite number above 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": 0.0}, "fps is 0"),
        ({"num_frames": 1}, "1 frames do not fit toyworld"),
        ({"size": (0, 32)}, "32x0 px do not fit toyworld"),
        ({"size": (-32, 32)}, "32x-32 px do not fit toyworld"),
    ],
)
def test_data_that_cannot_be_cut_so_is_refused(data, change, reason):
    with pytest.raises(InputError, match=reason):
        replace(data, **change).scan(load_base("toyworld"), RECIPE)


def test_a_pair_does_not_tell_where_its_base_lies(data, tmp_path):
    """Pairs are passed on. The run's own folder keeps the whole path, by which a resumed run knows its base."""
    script = Path(__file__).parents[2] / "scripts" / "make_tiny_models.py"
    folder = runpy.run_path(str(script))["make_tiny_models"](tmp_path / "private", seed=0)["wan"]
    data = replace(data, size=(32, 32), num_frames=5)
    train_pair(load_base(folder), data, tmp_path / "pair.safetensors", RECIPE)
    header = read_header(tmp_path / "pair.safetensors")
    assert header["base"]["name"] == "wan-tiny" and str(tmp_path) not in json.dumps(header)
    assert json.loads((tmp_path / "pair.safetensors.run" / "run.json").read_text())["base"]["name"] == str(folder)
    elsewhere = load_base(folder.rename(tmp_path / "wan-tiny"))
    manifests = data.scan(elsewhere, RECIPE)
    training = Training(
        elsewhere, prepare_data(elsewhere, manifests, tmp_path / "cache"), RECIPE, tmp_path / "pair.safetensors.run",
        {"prompts": header["prompts"]},
    )  # fmt: skip
    with pytest.raises(InputError, match="was started with another base: name"):
        list(training.steps(is_resumed=True))
    training.close()
