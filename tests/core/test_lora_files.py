"""LoRA files: what other programs read of ours."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import FAMILY_NAMES, TinyBase, model_inputs, tiny_pair

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.combine import combine
from dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from dualreal_core.method.pair import AdapterPair, iterate_sides
from dualreal_core.storage import export_lora


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def base(request) -> TinyBase:
    return TinyBase(request.param, 2)


@pytest.fixture(scope="module")
def wan() -> TinyBase:
    return TinyBase("wan", 2)


def layers_of(pair: AdapterPair) -> list[str]:
    """Linear layers that LoRA sides update, without block numbers."""
    return sorted({layer for *_, layer, _ in iterate_sides(pair)})


def at_full(pair: AdapterPair, role: str) -> dict[str, float]:
    """The weight at which a side acts as its matrices say."""
    return {role: 2 / pair.config.scale}


def lora_output(base: TinyBase, pair: AdapterPair, role: str) -> torch.Tensor:
    """Output with one LoRA side at weight 1."""
    with torch.no_grad(), Attachment(base.transformer, pair, FixedBlend(float(role == "identity"), float(role == "motion"))):
        return base.predict(*model_inputs())


def plain_output(base: TinyBase) -> torch.Tensor:
    with torch.no_grad():
        return base.predict(*model_inputs())


@pytest.mark.parametrize("reader", ["diffusers", "diffusers without metadata", "peft"])
@pytest.mark.parametrize("alpha", [4.0, 10.0])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_others_read_our_lora(family, tmp_path, alpha, reader):
    base = TinyBase(family, 2)
    pair = tiny_pair(base, kind="lora", alpha=alpha)
    ours = {role: lora_output(base, pair, role) for role in ("identity", "motion")}
    for role, expected in ours.items():
        other = TinyBase(family, 2)
        export_lora(tmp_path / "lora.safetensors", pair, at_full(pair, role), "diffusers", overwrites=True)
        tensors = load_file(tmp_path / "lora.safetensors")
        if reader == "diffusers":
            other.transformer.load_lora_adapter(tmp_path, weight_name="lora.safetensors", prefix="transformer")
        elif reader == "diffusers without metadata":
            other.transformer.load_lora_adapter(tensors, prefix="transformer")
        else:
            layers = layers_of(pair)
            inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=layers), other.transformer)
            result = set_peft_model_state_dict(
                other.transformer, {name.removeprefix("transformer."): value for name, value in tensors.items()}
            )
            assert not result.unexpected_keys and not [name for name in result.missing_keys if "lora_" in name]
        assert (expected - plain_output(base)).norm() > 0.05 * expected.norm()
        torch.testing.assert_close(plain_output(other), expected, rtol=0, atol=1e-5)


def sides_of_other_ranks(base: TinyBase) -> dict[str, AdapterPair]:
    """Pairs whose tensors have other ranks than their configuration names for the identity side."""
    paths = [name for name, _ in base.transformer.named_modules() if name.endswith((".attn1.to_q", ".attn1.to_v"))]
    generator = torch.Generator().manual_seed(9)
    updates = [
        LinearUpdate(path, 0.2 * torch.randn(rank, 32, generator=generator), torch.randn(32, rank, generator=generator))
        for path, rank in zip(paths, (5, 3, 3, 3), strict=True)
    ]
    return {
        "combined": combine(tiny_pair(base, kind="lora", rank=8), tiny_pair(base, kind="lora", rank=16)),
        "of one side": one_sided_pair(base.transformer, "identity", updates),
    }


@pytest.mark.parametrize("name", ["combined", "of one side"])
def test_a_lora_keeps_its_strength_where_its_rank_is_not_that_of_the_configuration(wan, tmp_path, name):
    pair = sides_of_other_ranks(wan)[name]
    path, expected = tmp_path / "lora.safetensors", lora_output(wan, pair, "identity")
    export_lora(path, pair, at_full(pair, "identity"), "diffusers")
    by_peft, by_diffusers = TinyBase("wan", 2), TinyBase("wan", 2)
    with safe_open(path, "pt") as file:
        adapter_config = json.loads(file.metadata()["lora_adapter_metadata"])
    config = LoraConfig(**{name.removeprefix("transformer."): value for name, value in adapter_config.items()})
    inject_adapter_in_model(config, by_peft.transformer)
    tensors = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    assert not set_peft_model_state_dict(by_peft.transformer, tensors).unexpected_keys
    torch.testing.assert_close(plain_output(by_peft), expected, rtol=0, atol=1e-5)
    by_diffusers.transformer.load_lora_adapter(tmp_path, weight_name="lora.safetensors", prefix="transformer")
    torch.testing.assert_close(plain_output(by_diffusers), expected, rtol=0, atol=1e-5)


def test_only_lora_sides_export(wan, tmp_path):
    sentences = {kind: f"identity side is of kind '{kind}', which has no LoRA form" for kind in ("bottleneck", "bottleneck-skip")}
    for kind, sentence in {**sentences, "none": "has no identity side"}.items():
        pair = tiny_pair(wan, identity_kind=kind, motion_kind="lora")
        with pytest.raises(InputError, match=sentence):
            export_lora(tmp_path / "lora.safetensors", pair, {"identity": 1.0})
    assert list(tmp_path.iterdir()) == []
