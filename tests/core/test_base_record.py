"""A pair on a base of the same size that is not the one it was trained on: it is said, and only then."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny import FAMILY_NAMES, TinyBase, all_items
from torch import nn

from dualreal_core.api import Training
from dualreal_core.families.base_record import base_difference, base_record, signature
from dualreal_core.method.combine import combine_headers
from dualreal_core.storage import load_pair, save_pair
from dualreal_core.storage.inspection import describe, lines
from dualreal_core.training.recipes import DUALREAL


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def base(request) -> TinyBase:
    return TinyBase(request.param)


def recorded(base: TinyBase, file: str | None = "one.safetensors") -> dict:
    """As it comes out of a file."""
    return json.loads(json.dumps(base_record(base.transformer, file)))


def copies(transformer: nn.Module) -> dict[str, nn.Module]:
    """What people have of one base."""

    def changed(change) -> nn.Module:
        other = copy.deepcopy(transformer)
        with torch.no_grad():
            for name, weight in other.named_parameters():
                weight.copy_(change(name, weight))
        return other

    noise = torch.Generator().manual_seed(1)
    return {
        "bf16": copy.deepcopy(transformer).bfloat16(),
        "fp16": copy.deepcopy(transformer).half(),
        "fp8 e4m3": changed(lambda name, weight: weight.to(torch.float8_e4m3fn).float()),
        "fp8 e5m2": changed(lambda name, weight: weight.to(torch.float8_e5m2).float()),
        "a merged LoRA": changed(lambda name, weight: weight + 0.3 if weight.ndim > 1 else weight),
        "a light finetune": changed(lambda name, weight: weight + 0.05 * weight.std() * torch.randn(weight.shape, generator=noise)),
    }


def test_copies_of_one_base_are_not_told_apart(base):
    for name, transformer in copies(base.transformer).items():
        assert base_difference(recorded(base), transformer, f"{name}.safetensors") is None, name
        before = json.loads(json.dumps(base_record(transformer, name)))
        assert base_difference(before, base.transformer, "one.safetensors") is None, name


def test_another_base_of_that_size_is_told(base):
    other = TinyBase(base.family.name, seed=1)
    said = base_difference(recorded(base), other.transformer, "two.safetensors")
    assert "this model (two.safetensors)" in said and "another one (one.safetensors): other weights" in said
    assert "another one: other weights" in base_difference(recorded(base, None), other.transformer, None)


def test_experts_are_told_by_their_names_where_weights_cannot_be_read(base):
    unread = copy.deepcopy(base.transformer).to("meta")
    high, low = "Wan2.2_high_noise_fp8.safetensors", "wan2.2-LowNoise.gguf"
    said = base_difference(recorded(base, high), unread, low)
    assert "the high-noise expert there, the low-noise expert here" in said
    assert base_difference(recorded(base, high), unread, "wan2.2 high-noise.gguf") is None
    assert base_difference(recorded(base, high), unread, "wan.gguf") is None
    assert base_difference(recorded(base, high), base.transformer, low) is None  # the same weights under a wrong name
    alike = copy.deepcopy(base.transformer)
    with torch.no_grad():
        for name, weight in alike.named_parameters():
            if name.endswith("bias"):
                weight += 0.01 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    assert base_difference(recorded(base, high), alike, high) is None
    assert "the high-noise expert there, the low-noise expert here" in base_difference(recorded(base, high), alike, low)


def test_input_channels_are_told(base):
    before = {"in_channels": 16 if base.family.name == "wan" else 32}
    said = base_difference(before, base.transformer, None)
    assert ("16 input channels (text to video) there" if base.family.name == "wan" else "32 input channels (image to video)") in said
    assert "4 input channels here" in said


def quantized(transformer: nn.Module) -> nn.Module:
    """Biases of a class of its own, as wrappers of quantized weights have."""

    class Packed(torch.Tensor):
        pass

    other = copy.deepcopy(transformer)
    for module in other.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            bias = module.bias.detach().as_subclass(Packed)
            del module._parameters["bias"]
            module.bias = bias
    return other


@pytest.mark.parametrize("form", ["meta", "quantized", "not a number", "zero"])
def test_nothing_is_said_of_weights_that_cannot_be_read(base, form):
    other = TinyBase(base.family.name, seed=1).transformer
    if form in ("not a number", "zero"):
        with torch.no_grad():
            for name, weight in other.named_parameters():
                if name.endswith("bias"):
                    weight.fill_(float("nan") if form == "not a number" else 0.0)
    else:
        other = other.to("meta") if form == "meta" else quantized(other)
    assert signature(other) == {} and base_difference(recorded(base), other, None) is None


@pytest.mark.parametrize(
    "before",
    [None, {}, "tiny", {"name": "tiny", "encoders": "abc"}, {"identity": {"name": "a"}, "motion": {"name": "b"}}, {"signature": 3},
     {"signature": {"0-attn1.to_q": "x", "2-attn1.to_q": [1], "4-attn1.to_q": [None]}}, {"in_channels": "16", "expert": 3}],
)  # fmt: skip
def test_nothing_is_said_of_what_former_or_odd_files_record(base, before):
    assert base_difference(before, base.transformer, "one.safetensors") is None


def test_a_trained_pair_carries_it(base, tmp_path):
    data = {role: type("Set", (), {"items": items, "fingerprints": (), "cut": ""})() for role, items in all_items().items()}
    training = Training(base, data, DUALREAL, tmp_path / "run")
    training.save(tmp_path / "pair.safetensors")
    training.close()
    _, header = load_pair(tmp_path / "pair.safetensors")
    assert base_difference(header["base"], base.transformer, None) is None
    assert "other weights" in base_difference(header["base"], TinyBase(base.family.name, seed=1).transformer, None)
    assert (tmp_path / "pair.safetensors").stat().st_size > 0
    row = next(row for row in lines(describe(tmp_path / "pair.safetensors")) if row.startswith("base signature"))
    assert row.endswith(f"recorded ({len(header['base']['signature'])} biases)")


def test_a_combined_pair_carries_what_both_sides_share(base):
    other = TinyBase(base.family.name, seed=1)
    same = combine_headers({"base": recorded(base)}, {"base": recorded(base)})
    mixed = combine_headers({"base": recorded(base)}, {"base": recorded(other)})
    assert base_difference(same["base"], other.transformer, None) is not None
    assert base_difference(mixed["base"], other.transformer, None) is None


def test_saving_it_keeps_it(base, tmp_path):
    from tiny import tiny_pair

    save_pair(tmp_path / "pair.safetensors", tiny_pair(base), {"base": recorded(base)})
    assert load_pair(tmp_path / "pair.safetensors")[1]["base"] == recorded(base)
