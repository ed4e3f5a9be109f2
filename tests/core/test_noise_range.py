"""The noise that an expert is trained at: its own, said in a note, unless it is set; and old runs that know nothing of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from tiny import TinyBase, all_items

from dualreal_core.api import Training
from dualreal_core.dataset import PreparedSet
from dualreal_core.errors import InputError
from dualreal_core.families.base_record import expert_of
from dualreal_core.objective import FlowMatching, VPrediction
from dualreal_core.storage import load_pair
from dualreal_core.training.noise_range import fit_range
from dualreal_core.training.recipes import DUALREAL, read_recipe, with_train
from dualreal_core.training.settings import TrainSettings

FLOW = FlowMatching(shift=8.0)
RECIPE = replace(with_train(DUALREAL, steps=2, evaluate_every=0), pair={**DUALREAL.pair, "num_groups": 2, "rank": 2, "alpha": 2.0})


def wan(in_channels: int) -> WanTransformer3DModel:
    with torch.device("meta"):
        return WanTransformer3DModel(
            num_attention_heads=1, attention_head_dim=16, in_channels=in_channels, out_channels=16, text_dim=8, ffn_dim=8, num_layers=1
        )


@pytest.mark.parametrize(
    ("file", "in_channels", "wanted"),
    [
        ("wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", 16, (0.875, 1.0)),
        ("wan2.2_t2v_low_noise_14B_fp16.safetensors", 16, (0.0, 0.875)),
        ("wan2.2_i2v_high_noise_14B_fp16.safetensors", 36, (0.9, 1.0)),
        ("Wan2.2-I2V-A14B-LowNoise-Q4_K_M.gguf", 36, (0.0, 0.9)),
        ("Wan2_2-T2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ.safetensors", 16, (0.875, 1.0)),
        ("Wan2_2-I2V-A14B-LOW_bf16.safetensors", 36, (0.0, 0.9)),
    ],
)
def test_an_expert_is_trained_on_its_own_noise_and_that_is_said(file, in_channels, wanted):
    fitted, note = fit_range(RECIPE, FLOW, wan(in_channels), file)
    assert fitted.train.sigma_range == wanted
    assert f"{wanted[0]:g} to {wanted[1]:g}" in note and ("high-noise" if wanted[1] == 1 else "low-noise") in note
    assert fit_range(fitted, FLOW, wan(in_channels), file) == (fitted, None)


@pytest.mark.parametrize(
    ("file", "in_channels"),
    [
        (None, 16),
        ("wan2.1_t2v_14B.safetensors", 16),
        ("wan2.2_ti2v_5B_high_noise.safetensors", 48),
        ("wan_highlights_a14b.safetensors", 16),
        ("wan2.2_slow_motion_a14b.safetensors", 16),
    ],
)
def test_others_are_trained_on_all_noise(file, in_channels):
    assert expert_of(wan(in_channels), file) is None
    assert fit_range(RECIPE, FLOW, wan(in_channels), file) == (RECIPE, None)


def test_the_range_of_an_expert_can_be_set_otherwise():
    low = "wan2.2_t2v_low_noise_14B.safetensors"
    for changes, wanted in (
        ({"sigma_min": 0.0, "sigma_max": 1.0}, (0.0, 1.0)),
        ({"sigma_min": 0.3}, (0.3, 0.875)),
        ({"sigma_max": 0.5}, (0.0, 0.5)),
    ):
        fitted, note = fit_range(with_train(RECIPE, **changes), FLOW, wan(16), low)
        assert fitted.train.sigma_range == wanted and (note is None) == (len(changes) == 2)
    with pytest.raises(InputError, match=r"sigma_min is 0.9 and sigma_max 0.875.*low-noise expert.*set both, or leave sigma_min"):
        fit_range(with_train(RECIPE, sigma_min=0.9), FLOW, wan(16), low)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma_min": -0.1}, "sigma_min is -0.1; it must lie between 0 .clean. and 1 .noise."),
        ({"sigma_max": 875.0}, "sigma_max is 875.0; it must lie between"),
        ({"sigma_max": float("nan")}, "sigma_max is nan"),
        ({"sigma_min": 0.5, "sigma_max": 0.5}, "sigma_min is 0.5 and sigma_max 0.5; sigma_min must lie below"),
        ({"sigma_min": 1.0}, "sigma_min must lie below"),
        ({"sigma_max": 0.0}, "sigma_min must lie below"),
    ],
)
def test_a_bad_range_is_one_sentence(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        TrainSettings(**changes)
    config = tmp_path / "run.toml"
    config.write_text("[train]\n" + "".join(f"{name} = {value}\n" for name, value in changes.items()))
    with pytest.raises(InputError, match=words):
        read_recipe(config, DUALREAL)


def test_a_range_without_any_timestep_is_refused_before_training():
    objective = VPrediction(tuple(torch.linspace(0.99, 0.5, 10).tolist()))
    with pytest.raises(InputError, match=r"sigma_min 0.8 and sigma_max 1 leave none .* which go from 0.1 to 0.707"):
        fit_range(with_train(RECIPE, sigma_min=0.8), objective, TinyBase("cogvideox", 1).transformer, None)


def run(base: TinyBase, folder: Path, **changes: object) -> Training:
    """A finished run, and its pair on disk."""
    data = {role: PreparedSet(items, tuple(item.source for item in items)) for role, items in all_items().items()}
    training = Training(base, data, with_train(RECIPE, **changes), folder / "run")
    list(training.steps())
    training.save(folder / "pair.safetensors")
    training.close()
    return training


def test_the_range_is_in_the_header_and_belongs_to_the_run(tmp_path):
    base = TinyBase("wan", 2)
    run(base, tmp_path, sigma_min=0.25)
    assert load_pair(tmp_path / "pair.safetensors")[1]["training"]["sigma_min"] == 0.25
    data = {role: PreparedSet(items, tuple(item.source for item in items)) for role, items in all_items().items()}
    for changes in ({"sigma_min": 0.3}, {}):
        with pytest.raises(InputError, match="training: sigma_min"):
            list(Training(base, data, with_train(RECIPE, **changes), tmp_path / "run").steps(is_resumed=True))


def test_a_run_of_all_noise_is_named_as_before_there_were_ranges(tmp_path):
    """Neither its settings nor its header know of them, whether nothing is set or all noise."""
    later = {"sigma_min", "sigma_max", "expert_steps"}
    before = {name: value for name, value in asdict(RECIPE.train).items() if name not in later}
    for changes in ({}, {"sigma_min": 0.0}, {"sigma_min": 0.0, "sigma_max": 1.0}):
        assert with_train(RECIPE, **changes).train.recorded() == before
    training = run(TinyBase("wan", 2), tmp_path)
    assert not later & set(training.header["training"])
    assert not later & set(json.loads((tmp_path / "run" / "run.json").read_text())["training"])


def test_a_base_named_as_an_expert_is_trained_as_one(tmp_path):
    """Through `Training`, which the command line and the library use."""
    base = TinyBase("wan", 2)
    base.name = "models/Wan2.2-T2V-A14B-high_noise"
    base.transformer.patch_embedding.in_channels = 16  # by which its kind is told; the layer itself takes what it took
    training = run(base, tmp_path)
    assert training.header["training"]["sigma_min"] == 0.875 and "0.875 to 1" in training.notes[-1]
