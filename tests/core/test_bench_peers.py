"""The paper's recipe with settings of its pair, and the peers: what their papers say of them holds for these."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import TOY_RECIPE
from dualreal_core.bench.fitting import shared_noise
from dualreal_core.bench.gated_lora import GatedLoRA, gated_pair, new_gated_pair
from dualreal_core.bench.joining.table import JOINERS
from dualreal_core.bench.peer_trainers import SPARSE_LAYERS
from dualreal_core.bench.registry import METHODS, find_method
from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import new_pair, split_key
from dualreal_core.toyworld.trial import Trial

TRIAL = Trial("tam", "box")


@pytest.fixture(scope="module")
def base():
    return load_base("toyworld")


def only_run(name):
    (run,) = find_method(name).runs(TRIAL, TOY_RECIPE)
    return run


def test_settings_of_the_pair_and_steps_reach_the_run():
    run = only_run("paper-tuned[scale=0.2,bottleneck_dim=128,learning_rate=0.004,steps=3200]")
    assert (run.recipe.pair["scale"], run.recipe.pair["bottleneck_dim"]) == (0.2, 128)
    assert (run.recipe.train.learning_rate, run.recipe.train.steps) == (4e-3, 3200)
    assert isinstance(run.recipe.train.steps, int)
    assert run.recipe.pair["identity_kind"] == "bottleneck-skip"
    assert run.key != only_run("paper-tuned[scale=0.2,bottleneck_dim=128,learning_rate=0.004]").key


@pytest.mark.parametrize("name", ["jointtuner", "paper-lora"])
def test_a_recipe_that_resets_batches_keeps_those_of_a_name(name):
    assert only_run(f"{name}[identity_batch=8]").recipe.train.identity_batch == 8
    assert only_run(name).recipe.train.identity_batch == TOY_RECIPE.train.motion_batch


def test_at_a_share_of_its_own_the_same_pair_is_sampled_without_its_controller(base):
    method = find_method("paper-tuned[identity_share=0.5]")
    assert method.runs(TRIAL, TOY_RECIPE) == find_method("paper-tuned").runs(TRIAL, TOY_RECIPE)
    blend = method.assemble([new_pair(base.transformer, 0, scale=0.5)]).blend
    assert (blend.identity, blend.motion) == (0.25, 0.25)


def test_a_rank_brings_its_alpha_along():
    assert only_run("paper-lora[rank=8]").recipe.pair["alpha"] == 8.0


@pytest.mark.parametrize(
    ("name", "message"),
    [("paper-tuned[steps=3200.5]", "count is whole"), ("paper-tuned[rank=8]", "no setting 'rank'"), ("ours[steps=3200]", "no setting")],
)
def test_settings_that_mean_nothing_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        find_method(name)


@pytest.mark.parametrize("name", ["paper-tuned", "paper-neutral", "paper-lora"])
def test_the_papers_method_keeps_both_sides_on_and_its_controller_free(name):
    recipe = only_run(name).recipe
    assert (recipe.train.frozen_adapter_dropout, recipe.train.preservation_ratio, recipe.train.timestep_bias) == (0, 0, 0)
    assert recipe.train.motion_ratio == 0.5
    assert "share_schedule" not in recipe.pair
    assert recipe.pair.get("has_controller", True)


def test_a_gated_lora_is_a_lora_times_the_mean_openness_of_its_sample():
    torch.manual_seed(0)
    adapter = GatedLoRA(6, 5, 2)
    torch.nn.init.normal_(adapter.up.weight)
    hidden = torch.randn(3, 4, 6)
    plain = hidden @ adapter.down.weight.T @ adapter.up.weight.T
    openness = torch.sigmoid(hidden @ adapter.gate.weight.T).mean(dim=(1, 2))
    torch.testing.assert_close(adapter(hidden), plain * openness[:, None, None])
    torch.testing.assert_close(adapter(hidden[1]), plain[1] * openness[1])


@torch.no_grad()
def test_a_gated_pair_acts_in_the_base_as_its_stored_state_does(base):
    pair = new_gated_pair(base, 4, 0)
    for adapter in pair.sides["identity"].values():
        torch.nn.init.normal_(adapter.up.weight, std=0.02)
    latents = torch.randn(2, 16, 3, 8, 8)
    text = base.batch_texts([base.encode_text("a figure * on mint")] * 2)
    outputs = []
    for one in (pair, gated_pair(base, pair.sides["identity"].state_dict())):
        with Attachment(base.transformer, one):
            outputs.append(base.predict(latents, torch.full((2,), 500.0), text))
    assert torch.equal(*outputs)
    assert not torch.allclose(outputs[0], base.predict(latents, torch.full((2,), 500.0), text))


def test_shared_noise_is_that_of_all_frames_and_channels():
    output = torch.zeros(2, 3, 4, 5, 6)
    noise = shared_noise(output, torch.Generator().manual_seed(0))
    assert noise.shape == (2, 1, 1, 5, 6)
    assert not torch.equal(noise[0], noise[1])


def test_sparse_sides_lie_on_their_own_layers_and_the_identity_doubles_at_the_switch(base):
    shared = {"scale": 2.0, "num_groups": 1, "has_controller": False, "identity_kind": "lora", "motion_kind": "lora"}
    sides = [new_pair(base.transformer, 0, target_layers=layers, **shared) for layers in SPARSE_LAYERS.values()]
    for side, other in zip(sides, ("motion", "identity"), strict=True):
        del side.sides[other]
    candidate = JOINERS["smrabooth"](base, TRIAL, sides, {"learning_rate": 2e-3, "identity_early": 0.4, "switch": 0.3})
    for role, layers in SPARSE_LAYERS.items():
        assert {split_key(key)[1] for key in candidate.pair.sides[role]} == set(layers)
    early, late = (candidate.blend.scheduled(None, level)[0].tolist() for level in (0.9, 0.85))  # the switch lies at .875
    assert (early, late) == (pytest.approx([0.4, 1.0]), pytest.approx([0.8, 1.0]))


def test_peers_of_two_stages_take_the_rate_of_their_name():
    runs = find_method("smrabooth[learning_rate=0.004]").runs(TRIAL, TOY_RECIPE)
    assert {run.recipe.train.learning_rate for run in runs} == {4e-3}
    assert {run.trainer: (run.identity, run.motion) for run in runs} == {
        "sparse-identity": ("tam", None),
        "sparse-motion": (None, "box"),
    }
    assert find_method("smrabooth[switch=0.5]").runs(TRIAL, TOY_RECIPE) == find_method("smrabooth").runs(TRIAL, TOY_RECIPE)


def test_every_way_to_join_may_stand_in_the_fusion_table():
    for name in ("k-lora[alpha=1,beta=0.25]", "ties[density=0.3]", "dare[density=0.9]"):
        assert find_method(name).runs(TRIAL, TOY_RECIPE) == METHODS["sum"].runs(TRIAL, TOY_RECIPE)


def test_an_untrained_stage_blender_gives_stills_and_clips_even_shares(base):
    """And what `benchmarks/shortcut.py` reads is what acts, for each of what it shows."""
    path = Path(__file__).parents[2] / "benchmarks" / "shortcut.py"
    spec = importlib.util.spec_from_file_location("shortcut", path)
    shortcut = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shortcut)
    pair = new_pair(base.transformer, 0, scale=0.2)
    assert {*shortcut.shares(base, pair, TRIAL, 0.4)} == {(shown, 0.5) for shown in shortcut.SHOWN}
    torch.nn.init.normal_(pair.controller.out.weight)
    shares = dict(shortcut.shares(base, pair, TRIAL, 0.4))
    assert shares["still"] != pytest.approx(shares["clip"], abs=1e-4)
