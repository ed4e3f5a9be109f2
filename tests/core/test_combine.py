"""A combined pair adds what each side adds in its own pair, at the weight it had there."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny import FAMILY_NAMES, KINDS, TinyBase, fill, is_same, make_pair, model_inputs, predict

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend, SharePlan
from dualreal_core.method.combine import combine, combine_headers
from dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from dualreal_core.method.pair import AdapterPair, Role
from dualreal_core.storage import load_pair, save_pair

EVERY_KINDS = [(identity, motion) for identity in KINDS for motion in KINDS]


def sided(base: TinyBase, role: Role, kind: str, seed: int = 1, **settings: object) -> AdapterPair:
    """A filled pair without controller that has the side `role` alone."""
    other = "motion" if role == "identity" else "identity"
    return fill(make_pair(base, kind, **{f"{other}_kind": "none", "has_controller": False, **settings}), seed)


def lora_file_pair(base: TinyBase, role: Role) -> AdapterPair:
    """What Load LoRA gives: scale 2, one layer, its own rank."""
    generator = torch.Generator().manual_seed(9)
    path = next(name for name, _ in base.transformer.named_modules() if name.endswith(".1.attn1.to_v"))
    down, up = torch.randn(3, 32, generator=generator), torch.randn(32, 3, generator=generator)
    return one_sided_pair(base.transformer, role, [LinearUpdate(path, 0.2 * down, up)])


def contribution(pair: AdapterPair, role: Role, key: str) -> torch.Tensor:
    """What an adapter adds for fixed tokens, at half its pair's scale."""
    adapter = pair.sides[role][key]
    hidden = torch.randn(1, 4, adapter.down.in_features, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return adapter(hidden) * pair.config.scale / 2


def assert_same_contributions(pair: AdapterPair, source: AdapterPair, role: Role) -> None:
    assert list(pair.sides[role]) == list(source.sides[role])
    for key in source.sides[role]:
        torch.testing.assert_close(contribution(pair, role, key), contribution(source, role, key), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("identity_kind", "motion_kind"), EVERY_KINDS)
def test_each_side_adds_what_it_added(identity_kind: str, motion_kind: str) -> None:
    base = TinyBase("wan", num_blocks=2)
    identity = sided(base, "identity", identity_kind, 1, num_groups=2)
    motion = sided(base, "motion", motion_kind, 2, num_groups=2)
    pair = combine(identity, motion)
    assert (pair.config.identity_kind, pair.config.motion_kind) == (identity_kind, motion_kind)
    assert_same_contributions(pair, identity, "identity")
    assert_same_contributions(pair, motion, "motion")


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_side_left_out_leaves_the_other_as_it_was_alone(family: str) -> None:
    base = TinyBase(family)
    identity, motion = lora_file_pair(base, "identity"), sided(base, "motion", "bottleneck")
    pair = combine(identity, motion)
    for role, source in (("identity", identity), ("motion", motion)):
        alone = copy.deepcopy(pair)
        for adapter in alone.sides["motion" if role == "identity" else "identity"].values():
            torch.nn.init.zeros_(adapter.up.weight)
            if adapter.up.bias is not None:
                torch.nn.init.zeros_(adapter.up.bias)
        torch.testing.assert_close(predict(base, alone), predict(base, source), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("motion_kind", KINDS)
def test_scales_are_folded_and_sizes_kept(motion_kind: str) -> None:
    base = TinyBase("wan", num_blocks=2)
    identity = sided(base, "identity", "lora", 1, num_groups=2, rank=4, alpha=1.0, scale=2.0)
    motion = sided(base, "motion", motion_kind, 2, num_groups=2, rank=6, alpha=3.0, scale=0.2)
    pair = combine(identity, motion)
    config = pair.config
    assert (config.identity_rank, config.identity_alpha, config.motion_rank, config.motion_alpha) == (4, 1.0, 6, 3.0)
    assert_same_contributions(pair, identity, "identity")
    assert_same_contributions(pair, motion, "motion")


def test_a_side_with_an_inner_skip_keeps_its_scale() -> None:
    base = TinyBase("wan", num_blocks=2)
    skip = {role: sided(base, role, "bottleneck-skip", num_groups=2) for role in ("identity", "motion")}
    lora = {role: lora_file_pair(base, role) for role in ("identity", "motion")}
    for identity, motion in ((skip["identity"], lora["motion"]), (lora["identity"], skip["motion"])):
        pair = combine(identity, motion)
        assert pair.config.scale == 0.2
        assert_same_contributions(pair, identity, "identity")
        assert_same_contributions(pair, motion, "motion")
    other = sided(base, "motion", "bottleneck-skip", num_groups=2, scale=0.4)
    with pytest.raises(InputError, match=r"scales 0.2 and 0.4"):
        combine(skip["identity"], other)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_two_sides_may_differ_and_a_file_keeps_them(tmp_path, kind) -> None:
    base = TinyBase("wan", num_blocks=2)
    identity = sided(base, "identity", kind, rank=2, alpha=3.0, bottleneck_dim=5, num_groups=2)
    motion = sided(base, "motion", kind, 2, num_groups=2) if kind != "lora" else lora_file_pair(base, "motion")
    pair = combine(identity, motion)
    assert_same_contributions(pair, identity, "identity")
    assert_same_contributions(pair, motion, "motion")
    save_pair(tmp_path / "pair.safetensors", pair)
    loaded, _ = load_pair(tmp_path / "pair.safetensors")
    assert loaded.config == pair.config
    assert is_same(dict(loaded.state_dict()), dict(pair.state_dict()))
    assert torch.equal(predict(base, loaded), predict(base, pair))


def test_target_layers_are_those_of_both() -> None:
    base = TinyBase("wan", num_blocks=2)
    some, every = lora_file_pair(base, "motion"), sided(base, "identity", "lora", num_groups=2)
    assert combine(every, sided(base, "motion", "lora", num_groups=2)).config.target_layers == ()
    assert set(combine(every, some).config.target_layers) == set(every.family.linear_layers())
    assert combine(lora_file_pair(base, "identity"), some).config.target_layers == ("attn1.to_v",)
    assert combine(sided(base, "identity", "bottleneck", num_groups=2), some).config.target_layers == ("attn1.to_v",)


def test_it_is_one_of_whole_pairs_and_takes_no_controller() -> None:
    base = TinyBase("wan")
    first, second = fill(make_pair(base), 1), fill(make_pair(base), 2)
    before = copy.deepcopy(dict(first.state_dict()))
    pair = combine(first, second)
    assert pair.controller is None
    assert pair.config.motion_condition_dim == first.config.motion_condition_dim
    assert is_same(dict(pair.sides["identity"].state_dict()), dict(first.sides["identity"].state_dict()))
    assert is_same(dict(pair.sides["motion"].state_dict()), dict(second.sides["motion"].state_dict()))
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.zero_()
    assert is_same(before, dict(first.state_dict()))


@pytest.mark.parametrize("stage", [0.0, 0.6, 1.0])
def test_sides_trained_on_one_course_stay_on_it(stage: float) -> None:
    base = TinyBase("wan", num_blocks=2)
    share_schedule = (0.4, 0.9)
    identity = sided(base, "identity", "lora", 1, num_groups=2, scale=2.0, share_schedule=share_schedule)
    whole = fill(make_pair(base, "lora", num_groups=2, scale=2.0, share_schedule=share_schedule), 2)
    pair = combine(identity, whole)
    assert pair.config.share_schedule == share_schedule
    with Attachment(base.transformer, pair) as attachment, torch.no_grad():
        attachment.stage = stage
        on_course = base.predict(*model_inputs())
        attachment.blend = FixedBlend(2 * (0.4 + 0.5 * stage), 2 * (0.6 - 0.5 * stage))
        torch.testing.assert_close(on_course, base.predict(*model_inputs()))
        attachment.blend = FixedBlend(1.0, 1.0)
        assert not torch.allclose(on_course, base.predict(*model_inputs()), atol=1e-4)


def test_sides_of_different_courses_work_at_even_weights() -> None:
    base = TinyBase("wan", num_blocks=2)
    identity = sided(base, "identity", "lora", 1, num_groups=2, scale=2.0, share_schedule=(0.4, 0.9))
    assert combine(identity, lora_file_pair(base, "motion")).config.share_schedule == ()


def test_it_draws_no_random_numbers_and_gives_float32() -> None:
    base = TinyBase("wan", num_blocks=2)
    state = torch.get_rng_state()
    identity, motion = sided(base, "identity", "lora", num_groups=2).bfloat16(), lora_file_pair(base, "motion")
    pair = combine(identity, motion)
    assert torch.equal(state, torch.get_rng_state())
    assert {parameter.dtype for parameter in pair.parameters()} == {torch.float32}


def test_a_plan_weighs_both_sides() -> None:
    base = TinyBase("wan", num_blocks=2)
    pair = combine(lora_file_pair(base, "identity"), sided(base, "motion", "bottleneck", num_groups=2))
    motion_only = SharePlan(stages=(0.0,)).blend(pair.config)
    with torch.no_grad(), Attachment(base.transformer, pair, motion_only) as attachment:
        from tiny import model_inputs

        shown = base.predict(*model_inputs())
        attachment.strengths = {"identity": 0.0, "motion": 1.0}
        assert torch.equal(shown, base.predict(*model_inputs()))


def test_what_does_not_belong_together_is_refused() -> None:
    base = TinyBase("wan", num_blocks=2)
    identity, motion = sided(base, "identity", "bottleneck", num_groups=2), sided(base, "motion", "bottleneck", num_groups=2)
    with pytest.raises(InputError, match="motion input has no motion side"):
        combine(identity, identity)
    with pytest.raises(InputError, match="identity input has no identity side"):
        combine(motion, motion)
    with pytest.raises(InputError, match="num_blocks 2, the motion for 3"):
        combine(identity, sided(TinyBase("wan", num_blocks=3), "motion", "bottleneck"))
    with pytest.raises(InputError, match="family wan, the motion for cogvideox"):
        combine(identity, sided(TinyBase("cogvideox", num_blocks=2), "motion", "bottleneck", num_groups=2))
    del motion.sides["motion"]["0-ff"]
    with pytest.raises(InputError, match="different places"):
        combine(identity, motion)


def test_headers_keep_what_belongs_to_the_sides_that_were_taken() -> None:
    def header(name: str) -> dict[str, object]:
        return {
            "format_version": 1,
            "config": {"family": "wan"},
            "digest": f"digest {name}",
            "base": {"name": "base"},
            "prompts": {"identity": f"{name} cat", "motion": f"{name} dance", "trigger": name},
            "training": {"steps": 5, "name": name},
            "datasets": {"identity": [f"{name} photo"], "motion": [f"{name} clip"]},
            "consent": f"All agree.\nNote of {name}.",
            "provenance": {"date": "long ago"},
        }

    assert combine_headers(header("a"), header("b")) == {
        "base": {"name": "base"},
        "prompts": {"identity": "a cat", "motion": "b dance", "trigger": "a"},
        "training": {"identity": {"steps": 5, "name": "a"}, "motion": {"steps": 5, "name": "b"}},
        "datasets": {"identity": ["a photo"], "motion": ["b clip"]},
        "consent": "All agree.\nNote of a.\nNote of b.",
        "sources": {"identity": "digest a", "motion": "digest b"},
    }


def test_a_combined_header_has_the_words_of_both_gates() -> None:
    def gated(name: str) -> dict[str, object]:
        sides = {role: {"names": [f"{name} {role}"], "placed": [f"{name} {role}"], "near": []} for role in ("identity", "motion")}
        names = {role: side["names"] for role, side in sides.items()}
        return {"prompt_gate": {**names, "accuracy": {"identity": 0.9, "motion": 0.8}, "sides": sides}}

    both = combine_headers(gated("a"), gated("b"))["prompt_gate"]
    assert both["identity"] == ["a identity"] and both["motion"] == ["b motion"]
    assert both["accuracy"] == {"identity": 0.9, "motion": 0.8} and both["sides"]["motion"]["names"] == ["b motion"]
    assert combine_headers(gated("a"), {})["prompt_gate"]["sides"].keys() == {"identity"}


def test_headers_of_loras_and_of_combined_pairs_can_be_combined() -> None:
    lora = {"source": "cat.safetensors", "training": {"lora": "cat.safetensors"}, "prompts": {"trigger": "sks"}}
    assert combine_headers({}, {}) == {}
    once = combine_headers(lora, {"base": {"name": "base"}, "consent": "Yes."})
    assert once == {
        "base": {"motion": {"name": "base"}},
        "prompts": {"trigger": "sks"},
        "training": {"identity": {"lora": "cat.safetensors"}},
        "consent": "Yes.",
        "sources": {"identity": "cat.safetensors"},
    }
    twice = combine_headers({"training": {"steps": 1}}, once)
    assert twice["base"] == {"motion": {"name": "base"}}
    assert json.loads(json.dumps(twice)) == twice
    assert combine_headers(once, once)["training"] == {"identity": {"lora": "cat.safetensors"}}
