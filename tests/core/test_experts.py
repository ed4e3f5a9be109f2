"""Pairs for two experts: each expert's part acts as a pair of its own, and one file holds both."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny import FAMILY_NAMES, KINDS, TinyBase, fill, is_same, make_pair, model_inputs, predict
from torch import nn

from dualreal_core.errors import InputError
from dualreal_core.families.expert_names import EXPERTS
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend, LearnedBlend, PartOfBlend
from dualreal_core.method.combine import combine
from dualreal_core.method.experts import base_of_expert, expert_of, experts_of, is_expert_pair, join_experts
from dualreal_core.method.experts_attachment import ExpertsAttachment
from dualreal_core.method.pair import AdapterPair, PairConfig
from dualreal_core.method.placement import placed
from dualreal_core.storage import export_lora, load_pair, read_header, save_pair
from dualreal_core.storage.inspection import describe, lines

NAMES = tuple(EXPERTS)
BOUNDARY = 0.875
SHARES_OF_MORE_ROWS = {"rtol": 0.0, "atol": 1e-6}
"""Processors may round a product of four rows otherwise than that of two, which are the last layer of a StageBlender of one expert."""


@pytest.fixture(scope="module")
def base() -> TinyBase:
    return TinyBase("wan", 3)


def both(base: TinyBase, kind: str = "lora", **settings: object) -> AdapterPair:
    """A filled pair for two experts, with a StageBlender."""
    return fill(make_pair(base, kind, **{"num_groups": 2, "experts": NAMES, "boundary": BOUNDARY, "has_controller": True, **settings}))


def one(base: TinyBase, kind: str = "lora", seed: int = 1, **settings: object) -> AdapterPair:
    """A filled pair for one DiT, without StageBlender."""
    return fill(make_pair(base, kind, **{"num_groups": 2, "has_controller": False, **settings}), seed)


def by_hand(pair: AdapterPair, index: int, base: TinyBase, kind: str) -> AdapterPair:
    """A pair for one DiT with copies of an expert's weights and of its rows of the StageBlender's last layer."""
    own = make_pair(base, kind, num_groups=2, has_controller=True)
    state = {name: tensor for name, tensor in pair.state_dict().items() if name.startswith("controller.")}
    for name in ("controller.out.weight", "controller.out.bias"):
        state[name] = state[name][2 * index : 2 * index + 2]
    for name, tensor in pair.sides.state_dict().items():
        role, key, rest = name.split(".", 2)
        block, place = key.split("-")
        if int(block) // 3 == index:
            state[f"sides.{role}.{int(block) % 3}-{place}.{rest}"] = tensor
    own.load_state_dict(state)
    return own


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_acts_as_a_pair_of_its_own(base: TinyBase, kind: str, index: int) -> None:
    pair = both(base, kind)
    expected = predict(base, by_hand(pair, index, base, kind))
    torch.testing.assert_close(predict(base, expert_of(pair, index)), expected, **SHARES_OF_MORE_ROWS)
    torch.testing.assert_close(predict(base, placed(expert_of(pair, index), torch.device("cpu"))), expected, **SHARES_OF_MORE_ROWS)
    assert not torch.allclose(predict(base, expert_of(pair, 1 - index)), expected, rtol=0, atol=1e-3)


def test_an_expert_is_a_view_of_the_pair(base: TinyBase) -> None:
    pair = both(base)
    views = experts_of(pair)
    for role in ("identity", "motion"):
        theirs = [parameter for view in views for parameter in view.role_parameters(role)]
        assert {id(parameter) for parameter in theirs} == {id(parameter) for parameter in pair.role_parameters(role)}
    assert all(view.controller is pair.controller and view.config.experts == () for view in views)
    assert [next(iter(view.sides["identity"])) for view in views] == ["0-attn1/to_q"] * 2
    assert experts_of(views[0]) == [views[0]] and [is_expert_pair(one) for one in (pair, *views)] == [True, False, False]


def test_training_an_expert_leaves_the_other_as_it_is(base: TinyBase) -> None:
    """Of the last layer of the StageBlender, too, it learns its own rows alone."""
    pair = both(base)
    with Attachment(base.transformer, expert_of(pair, 1)):
        inputs = torch.randn(1, 4, 3, 4, 6), torch.tensor([500]), torch.randn(1, 7, 8)
        base.predict(*inputs).square().mean().backward()
    for role in ("identity", "motion"):
        for key, adapter in pair.sides[role].items():
            assert (adapter.up.weight.grad is not None) == (int(key.partition("-")[0]) >= 3)
    rows = pair.controller.out.weight.grad.abs().sum(dim=1)
    assert (rows[:2] == 0).all() and (rows[2:] > 0).all()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_untrained_pair_is_neutral_in_both(family: str) -> None:
    base = TinyBase(family, 2)
    pair = make_pair(base, num_groups=2, experts=NAMES)
    assert len(pair.sides["identity"]) == 2 * len(make_pair(base, num_groups=2).sides["identity"])
    for view in experts_of(pair):
        assert torch.equal(predict(base, view), predict(base))


def test_one_dit_is_told_what_to_use(base: TinyBase) -> None:
    with pytest.raises(InputError, match=r"2 experts \(high-noise, low-noise\).*two experts"):
        predict(base, both(base))
    with pytest.raises(ValueError, match="no expert 2"):
        expert_of(both(base), 2)


@pytest.mark.parametrize(
    "settings",
    [{"experts": ("a",)}, {"experts": ("a", "a")}, {"boundary": 0.9}, {"experts": NAMES, "boundary": 1.0}],
    ids=str,
)
def test_experts_that_make_no_sense(settings: dict) -> None:
    with pytest.raises(ValueError, match="experts"):
        PairConfig(family="wan", dim=8, num_blocks=7, time_dim=8, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_pairs_act_as_each_did(base: TinyBase, kind: str) -> None:
    high, low = one(base, kind, 1), one(base, kind, 2)
    joined = join_experts(high, low, BOUNDARY)
    assert (joined.config.experts, joined.config.boundary) == (NAMES, BOUNDARY)
    for view, source in zip(experts_of(joined), (high, low), strict=True):
        assert torch.equal(predict(base, view), predict(base, source))


def test_joining_folds_ranks_strengths_and_scales(base: TinyBase) -> None:
    high, low = one(base, rank=4, alpha=4.0), one(base, seed=2, rank=2, alpha=6.0, scale=2.0)
    joined = join_experts(high, low)
    assert (joined.config.identity_rank, joined.config.scale) == (4, high.config.scale)
    for view, source in zip(experts_of(joined), (high, low), strict=True):
        torch.testing.assert_close(predict(base, view), predict(base, source), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacking", ["identity", "motion"])
def test_a_side_may_be_there_for_one_expert(base: TinyBase, tmp_path, kind: str, lacking: str) -> None:
    high, low = one(base, kind, 1, **{f"{lacking}_kind": "none"}), one(base, kind, 2)
    save_pair(tmp_path / "pair.safetensors", join_experts(high, low))
    joined, _ = load_pair(tmp_path / "pair.safetensors")
    first, second = experts_of(joined)
    assert (first.config.kind(lacking), second.config.kind(lacking)) == ("none", kind)
    assert torch.equal(predict(base, first), predict(base, high)) and torch.equal(predict(base, second), predict(base, low))
    shown = lines(describe(tmp_path / "pair.safetensors"))
    assert any(row.split() == [lacking, "high-noise", "none"] for row in shown)


def test_an_expert_without_any_side_is_the_plain_model(base: TinyBase) -> None:
    joined = join_experts(one(base, motion_kind="none"), one(base, identity_kind="none"))
    combined = combine(joined, join_experts(one(base), one(base, identity_kind="none")))
    assert "identity" not in expert_of(combined, 1).sides
    nothing = join_experts(one(base), one(base, identity_kind="none", motion_kind="none"))
    assert torch.equal(predict(base, expert_of(nothing, 1), with_condition=False), predict(base))


def test_joining_what_was_one_gives_it_back(base: TinyBase) -> None:
    pair = both(base)
    again = join_experts(*experts_of(pair), BOUNDARY)
    assert again.config == pair.config and is_same(dict(again.state_dict()), dict(pair.state_dict()))
    single = one(base, has_controller=True)
    for view in experts_of(join_experts(single, single)):
        torch.testing.assert_close(predict(base, view), predict(base, single), **SHARES_OF_MORE_ROWS)


def test_stage_blenders_that_differ_are_left_out(base: TinyBase) -> None:
    schedule = {"learned_range": 0.1, "share_schedule": (0.25, 0.75)}
    joined = join_experts(one(base, **schedule), one(base, seed=2, **schedule))
    assert joined.controller is None and joined.config.share_schedule == (0.25, 0.75)
    assert join_experts(one(base, **schedule), one(base)).config.share_schedule == ()


UNJOINABLE = {
    "kind": ({}, {"kind": "bottleneck"}),
    "bottleneck_dim": ({"kind": "bottleneck"}, {"kind": "bottleneck", "bottleneck_dim": 4}),
    "condition_dim": ({"kind": "bottleneck"}, {"kind": "bottleneck", "motion_condition_dim": None}),
    "inner skip": ({"kind": "bottleneck-skip"}, {"kind": "bottleneck-skip", "scale": 1.0}),
}


@pytest.mark.parametrize("reason", UNJOINABLE)
def test_pairs_of_different_forms_are_not_joined(base: TinyBase, reason: str) -> None:
    high, low = (one(base, **settings) for settings in UNJOINABLE[reason])
    with pytest.raises(InputError, match=reason):
        join_experts(high, low)


def test_pairs_of_different_bases_are_not_joined(base: TinyBase) -> None:
    with pytest.raises(InputError, match=r"num_blocks 3.*2"):
        join_experts(one(base), one(TinyBase("wan", 2)))
    with pytest.raises(InputError, match="two experts already"):
        join_experts(one(base), both(base))


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_holds_both(base: TinyBase, tmp_path, kind: str) -> None:
    path, pair = tmp_path / "pair.safetensors", both(base, kind)
    save_pair(path, pair)
    loaded, header = load_pair(path)
    assert loaded.config == pair.config and is_same(dict(loaded.state_dict()), dict(pair.state_dict()))
    assert header["format_version"] == 6 and header["config"]["experts"] == list(NAMES)
    assert {name.split(".")[1].partition("-")[0] for name in load_file(path) if name.startswith("identity.")} == set("012345")


def test_files_for_one_dit_stay_readable_by_older_versions(base: TinyBase, tmp_path) -> None:
    save_pair(tmp_path / "pair.safetensors", one(base))
    header = read_header(tmp_path / "pair.safetensors")
    assert header["format_version"] == 5 and not {"experts", "boundary"} & set(header["config"])


def test_a_part_of_a_pair_is_no_file(base: TinyBase, tmp_path) -> None:
    with pytest.raises(ValueError, match="join_experts"):
        save_pair(tmp_path / "pair.safetensors", expert_of(both(base), 1))
    assert not list(tmp_path.iterdir())


def test_inspection_shows_each_expert(base: TinyBase, tmp_path) -> None:
    pair = both(base, has_controller=False, share_schedule=(0.4, 0.9))
    with torch.no_grad():
        for key, adapter in pair.sides["motion"].items():
            if int(key.partition("-")[0]) >= 3:
                nn.init.zeros_(adapter.up.weight)
    save_pair(tmp_path / "pair.safetensors", pair)
    description = json.loads(json.dumps(describe(tmp_path / "pair.safetensors")))
    assert len(description["up_norms"]["identity"]["blocks"]) == 6 and len(description["experts"]["low-noise"]["identity"]["blocks"]) == 3
    shown = "\n".join(lines(description))
    assert "wan, 3 blocks of width 32 in each of 2 experts (high-noise, low-noise), which switch at sigma 0.875" in shown
    rows = [row for row in shown.splitlines() if row.startswith("motion low-noise")]
    assert len(rows) == 1 and "untrained" in rows[0]
    assert "norm of up" in next(row for row in shown.splitlines() if row.startswith("motion high-noise"))


def test_each_expert_is_exported_as_a_lora_of_its_own(base: TinyBase, tmp_path) -> None:
    pair = both(base)
    export_lora(tmp_path / "lora.safetensors", pair, {"identity": 1.0}, "diffusers")
    for index, mark in enumerate(("high", "low")):
        written = load_file(tmp_path / f"lora_{mark}_noise.safetensors")["transformer.blocks.2.attn1.to_q.lora_A.weight"]
        assert torch.equal(written, pair.sides["identity"][f"{3 * index + 2}-attn1/to_q"].down.weight)


@pytest.mark.parametrize("kinds", [("lora", "lora"), ("lora", "bottleneck"), ("bottleneck", "bottleneck-skip")], ids=" and ".join)
def test_sides_of_expert_pairs_are_combined(base: TinyBase, kinds: tuple[str, str]) -> None:
    identity = join_experts(*[one(base, kinds[0], seed, motion_kind="none") for seed in (1, 2)], BOUNDARY)
    motion = join_experts(*[one(base, kinds[1], seed, identity_kind="none") for seed in (3, 4)])
    combined = combine(identity, motion)
    assert (combined.config.experts, combined.config.boundary) == (NAMES, BOUNDARY)
    for index, view in enumerate(experts_of(combined)):
        single = combine(expert_of(identity, index), expert_of(motion, index))
        torch.testing.assert_close(predict(base, view), predict(base, single), **SHARES_OF_MORE_ROWS)


def test_a_side_of_one_expert_is_combined_too(base: TinyBase) -> None:
    identity = join_experts(one(base, "bottleneck"), one(base, "bottleneck", 2, identity_kind="none"))
    combined = combine(identity, both(base, "bottleneck"))
    assert [view.config.identity_kind for view in experts_of(combined)] == ["bottleneck", "none"]


@pytest.mark.parametrize("is_first", [True, False])
def test_an_expert_pair_is_not_combined_with_another(base: TinyBase, is_first: bool) -> None:
    pairs = (both(base), one(base))
    with pytest.raises(InputError, match=f"The {'identity' if is_first else 'motion'} pair is for a model of two experts"):
        combine(*(pairs if is_first else pairs[::-1]))


def test_a_header_may_name_the_base_of_each_expert() -> None:
    records = {name: {"file": name} for name in NAMES}
    assert base_of_expert(records, "low-noise") == {"file": "low-noise"}
    assert base_of_expert({"file": "a"}, "low-noise") == {"file": "a"} and base_of_expert(None, "low-noise") is None


def test_a_copy_of_a_part_stays_a_part(base: TinyBase) -> None:
    view = expert_of(both(base), 1)
    assert torch.equal(predict(base, copy.deepcopy(view)), predict(base, view))


def test_a_stage_blender_of_another_pair_is_taken_by_both_experts(base: TinyBase) -> None:
    """Each takes the groups of its own, however the blend is given; what else is set counts in both as well."""
    pair, other, second = both(base), fill(both(base), 5), TinyBase("wan", 3, seed=1)
    bases, blend = (base, second), LearnedBlend(other.controller)
    with torch.no_grad(), ExpertsAttachment([one.transformer for one in bases], pair, blend) as attachment:
        for index, (expert, part) in enumerate(zip(bases, attachment.parts, strict=True)):
            expert.predict(*model_inputs())
            assert part.weights.shape[1:] == (2, 2) and part.blend == PartOfBlend(blend, 2 * index, 2)
        attachment.finish_call()
        attachment.audio_strength, attachment.blend = 0.5, FixedBlend(0.3, 0.1)
        assert [part.audio_strength for part in attachment.parts] == [0.5, 0.5]
        assert all(part.blend == FixedBlend(0.3, 0.1) for part in attachment.parts)


def test_a_dit_that_runs_past_all_of_its_blocks_is_told(base: TinyBase) -> None:
    second, inputs = TinyBase("wan", 3, seed=1), model_inputs()
    with torch.no_grad(), ExpertsAttachment([base.transformer, second.transformer], both(base)) as attachment:
        blocks = second.transformer.blocks
        second.transformer.blocks = nn.ModuleList()
        second.predict(*inputs)
        second.transformer.blocks = blocks
        with pytest.raises(InputError, match=r"blocks.0"):
            attachment.finish_call()


def test_sides_of_experts_that_switch_elsewhere_are_not_combined(base: TinyBase) -> None:
    with pytest.raises(InputError, match=r"switch at a noise level \(sigma\) of 0.875, the motion at 0.9"):
        combine(both(base), both(base, boundary=0.9))
