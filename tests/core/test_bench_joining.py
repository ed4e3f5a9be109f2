"""Each way to join two LoRAs does what its definition says: against peft, diffusers, or a few lines here."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import TinyBase, fill, model_inputs

from dualreal_core.bases import load_base
from dualreal_core.bench.joining import picked, reconcile
from dualreal_core.bench.joining.balance import balanced
from dualreal_core.bench.joining.deltas import delta_of, deltas_of, pair_of
from dualreal_core.bench.joining.klora import KLoRA, ratios
from dualreal_core.bench.joining.looks import looks_kept
from dualreal_core.bench.joining.merges import dare, merged, project, ties
from dualreal_core.bench.joining.peft_adapters import combined, peft_model
from dualreal_core.bench.joining.table import JOINERS
from dualreal_core.bench.joining.turns import Turns
from dualreal_core.bench.registry import METHODS, TWO_LORA_ROWS, find_method
from dualreal_core.bench.two_loras import TWO_LORA_METHODS
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.combine import combine
from dualreal_core.method.from_lora import block_layers
from dualreal_core.method.pair import new_pair, split_key
from dualreal_core.toyworld.trial import Trial

FULL = FixedBlend(1.0, 1.0)
KEY = "1-attn1/to_q"


@pytest.fixture(scope="module")
def base():
    return TinyBase("wan")


@pytest.fixture(scope="module")
def toyworld():
    return load_base("toyworld")


def side(base, role, seed, rank=4):
    other = "motion" if role == "identity" else "identity"
    kinds = {f"{role}_kind": "lora", f"{other}_kind": "none"}
    pair = new_pair(base.transformer, 0, **kinds, rank=rank, alpha=float(rank), scale=2.0, has_controller=False, num_groups=3)
    return fill(pair, seed, 0.1).requires_grad_(False)


@pytest.fixture(scope="module")
def sides(base):
    return side(base, "identity", 1), side(base, "motion", 2)


@torch.no_grad()
def output(base, pair, blend=FULL, transformer=None):
    """The DiT's output with a pair in it."""
    latents, timestep, text = model_inputs()
    if pair is None:
        return (transformer or base.transformer)(latents, timestep, text, return_dict=False)[0]
    with Attachment(base.transformer, pair, blend):
        return base.transformer(latents, timestep, text, return_dict=False)[0]


def same(left, right):
    return torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_updates_of_whole_weights_act_as_the_sides_do(base, sides):
    identity, motion = sides
    added = {key: delta + deltas_of(motion, "motion")[key] for key, delta in deltas_of(identity, "identity").items()}
    alone = pair_of(added, identity)
    assert (output(base, alone) - output(base, None)).abs().max() > 1e-2
    same(output(base, alone), output(base, combine(*sides)))


def test_peft_cat_is_the_sum_and_so_is_what_diffusers_does_with_two_adapters(base, sides):
    summed = output(base, combine(*sides))
    same(output(base, combined(base.transformer, *sides, "cat")), summed)
    both = peft_model(base.transformer, *sides)
    both.set_adapter(["identity", "motion"])  # what `set_adapters` of diffusers comes to at weights of 1
    same(output(base, None, transformer=both.model), summed)


@pytest.mark.parametrize("how", ["linear", "ties", "svd"])
def test_pefts_combinations_are_pefts(base, sides, how):
    model = peft_model(base.transformer, *sides)
    model.add_weighted_adapter(["identity", "motion"], [1.0, 1.0], "both", how, density=0.5)
    model.set_adapter("both")
    expected = output(base, None, transformer=model.model)
    same(output(base, combined(base.transformer, *sides, how, 0.5)), expected)
    assert (expected - output(base, combine(*sides))).abs().max() > 1e-3


def test_the_copy_that_peft_works_on_leaves_the_base_alone(base, sides):
    before = copy.deepcopy(base.transformer.state_dict())
    combined(base.transformer, *sides, "linear")
    assert all(torch.equal(before[name], tensor) for name, tensor in base.transformer.state_dict().items())


def test_ties_by_hand():
    identity = torch.tensor([[4.0, -3.0, 0.1, 2.0]])
    motion = torch.tensor([[2.0, 5.0, 3.0, -0.1]])
    # half of the entries stay: 4, -3 and 5, 3; where both did, the sign of their sum wins, alone
    torch.testing.assert_close(ties(identity, motion, 0.5, 1.0), torch.tensor([[4.0, 5.0, 3.0, 0.0]]))
    torch.testing.assert_close(ties(identity, motion, 0.75, 2.0), torch.tensor([[6.0, 10.0, 6.0, 4.0]]))  # two that agree: their mean


def test_dare_keeps_the_mean_and_repeats_by_its_seed(sides):
    identity, motion = sides
    plain = deltas_of(identity, "identity")[KEY] + deltas_of(motion, "motion")[KEY]
    drawn = [delta_of(merged(*sides, lambda a, b: dare(a, b, 0.8), seed).sides["identity"][KEY]) for seed in (0, 0, *range(1, 60))]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert (torch.stack(drawn[1:]).mean(0) - plain).abs().mean() < 0.3 * (drawn[1] - plain).abs().mean()


def test_projection_leaves_nothing_of_the_identity_where_the_motion_writes(sides):
    identity, motion = (deltas_of(one, role)[KEY] for one, role in zip(sides, ("identity", "motion"), strict=True))
    left = project(identity, motion) - motion
    assert (motion.T @ left).abs().max() < 1e-4 < (motion.T @ identity).abs().max()
    unwritten = torch.linalg.svd(motion)[0][:, 4:]
    same(unwritten.T @ left, unwritten.T @ identity)


def test_balanced_sides_are_of_one_size(sides):
    pair, before = balanced(*sides), combine(*sides)
    sizes = [float(delta_of(pair.sides[role][KEY]).norm()) for role in ("identity", "motion")]
    former = [float(delta_of(before.sides[role][KEY]).norm()) for role in ("identity", "motion")]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4) == pytest.approx((former[0] * former[1]) ** 0.5, rel=1e-4)
    assert former[0] != pytest.approx(former[1], rel=1e-3)


def test_k_lora_chooses_by_the_largest_entries_and_the_step(base, sides):
    chosen = KLoRA(*sides, shift=1.0)
    assert chosen.tilt(1.0) == pytest.approx(0.5) and chosen.tilt(0.0) == pytest.approx(2.0) and chosen.tilt(0.5) == pytest.approx(1.25)
    assert KLoRA(*sides, shift=3.0).tilt(0.75) == pytest.approx(1.25)  # half of the steps of a schedule of that shift
    named = zip(sides, ("identity", "motion"), strict=True)
    deltas = [{key: delta.abs() for key, delta in deltas_of(one, role).items()} for one, role in named]
    totals = [sum(float(delta.sum()) for delta in side.values()) for side in deltas]
    largest = [sum(sorted(side[KEY].flatten().tolist())[-16:]) for side in deltas]  # rank 4 times rank 4
    assert ratios(combine(*sides))[KEY] == pytest.approx(largest[0] / largest[1] * totals[1] / totals[0], rel=1e-4)
    for level in (1.0, 0.6, 0.5, 0.4, 0.0):
        pair = chosen.pair_at(level)
        wanted = {key for key, ratio in chosen.ratios.items() if ratio * chosen.tilt(level) >= 1}
        assert set(pair.sides["identity"]) == wanted and set(pair.sides["motion"]) == set(chosen.ratios) - wanted
    early, late = chosen.pair_at(1.0), chosen.pair_at(0.0)
    assert len(early.sides["motion"]) > len(late.sides["motion"]) and chosen.pair_at(1.0) is early


def test_pairs_take_turns_by_the_noise_and_leave_the_base_as_it_was(base, sides):
    identity, motion = sides
    latents, timestep, text = model_inputs()
    plain = output(base, None)
    with Turns(base.transformer, lambda level: motion if level > 0.5 else identity, FULL) as turns, torch.no_grad():
        turns.start_over()
        for level, alone in ((1.0, motion), (0.2, identity), (0.8, motion)):
            turns.row_strengths = [1.0, 0.0]
            turns.move_to(1 - level, level)
            acting = base.transformer(latents, timestep, text, return_dict=False)[0]
            turns.finish_call()
            assert turns.pair is alone
            same(acting[:1], output_of_first(base, alone))
            same(acting[1:], plain[1:])
        turns.condition = turns.row_strengths = turns.stage = None
    assert torch.equal(output(base, None), plain)


def output_of_first(base, pair):
    copied = TinyBase("wan")
    copied.transformer.load_state_dict(base.transformer.state_dict())
    return output(copied, pair)[:1]


def test_half_way_to_a_reconciled_copy_is_half_of_both_updates(base, sides):
    identity, motion = sides
    reconciled = side(base, "identity", 3)
    pair = reconcile.between(identity, reconciled, motion)
    updates = [deltas_of(one, "identity")[KEY] for one in (identity, reconciled)]
    same(delta_of(pair.sides["identity"][KEY]), (updates[0] + updates[1]) / 2)
    same(delta_of(pair.sides["motion"][KEY]), deltas_of(motion, "motion")[KEY])


def toy_sides(toyworld):
    return [fill(one, seed, 0.02) for seed, one in enumerate((side(toyworld, "identity", 1), side(toyworld, "motion", 2)))]


def test_reconciliation_changes_the_identity_alone_and_repeats(toyworld, monkeypatch):
    monkeypatch.setattr(picked, "PREVIEW_STEPS", 1)
    monkeypatch.setattr(reconcile, "NUM_VIDEOS", 2)
    identity, motion = toy_sides(toyworld)
    before = copy.deepcopy(motion.state_dict())
    first, again = (reconcile.reconcile(toyworld, Trial("tam", "box"), identity, motion, steps=2) for _ in range(2))
    assert list(first.sides) == ["identity"] and all(torch.equal(before[name], one) for name, one in motion.state_dict().items())
    changes = [(one - identity.state_dict()[name]).abs().max() for name, one in first.state_dict().items()]
    assert max(changes) > 1e-4 and all(torch.equal(one, again.state_dict()[name]) for name, one in first.state_dict().items())


def test_previews_pick_one_of_the_dials(toyworld, monkeypatch):
    monkeypatch.setattr(picked, "PREVIEW_STEPS", 1)
    monkeypatch.setattr(picked, "NUM_PREVIEWS", 1)
    candidate = picked.picked(toyworld, Trial("tam", "box"), *toy_sides(toyworld))
    assert float(candidate.note.partition("=")[2]) in picked.DIALS


def test_looks_are_kept_where_the_subject_shows_wherever_it_is():
    trials = Trial("vex", "zigzag"), Trial("nim", "zigzag")
    shown, other = ([one.frames.movedim(-1, 1).float()[:, :, 8:40, 8:40] / 127.5 - 1 for one in trial.photos()] for trial in trials)
    moved = [video.roll(3, dims=-1) for video in shown]
    kept = looks_kept({"moved": moved, "other": other}, shown, other)
    assert kept["moved"] > 0.95 and kept["other"] == pytest.approx(0.0, abs=1e-6)


def test_every_row_can_be_joined():
    joined = {method.joiner for method in (*METHODS.values(), *TWO_LORA_METHODS.values()) if method.joiner}
    assert joined == set(JOINERS) and set(TWO_LORA_METHODS) < set(TWO_LORA_ROWS)
    assert find_method("curves[identity_early=0]").settings == {"identity_early": 0.0}


def test_layers_of_peft_are_those_of_the_pair(base, sides):
    paths = {path: (place.block, place.layer) for path, place in block_layers(base.transformer).items()}
    model = peft_model(base.transformer, *sides)
    found = {paths[path] for path, layer in model.model.named_modules() if "identity" in getattr(layer, "lora_A", {})}
    assert found == {split_key(key) for key in sides[0].sides["identity"]}
