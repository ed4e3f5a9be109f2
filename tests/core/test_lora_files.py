"""LoRA files: what other programs read of ours, and what we read of theirs."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import FAMILY_NAMES, TinyBase, is_same, make_pair, model_inputs, tiny_pair

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.combine import combine
from dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from dualreal_core.method.pair import AdapterPair, iterate_sides
from dualreal_core.storage import read_lora, write_lora


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def base(request) -> TinyBase:
    return TinyBase(request.param, 2)


@pytest.fixture(scope="module")
def wan() -> TinyBase:
    return TinyBase("wan", 2)


def layers_of(pair: AdapterPair) -> list[str]:
    """Linear layers that LoRA sides update, without block numbers."""
    return sorted({layer for *_, layer, _ in iterate_sides(pair)})


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
        write_lora(tmp_path / "lora.safetensors", pair, role)
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
    write_lora(path, pair, "identity")
    again = copy.deepcopy(pair)
    for adapter in again.sides["identity"].values():
        torch.nn.init.zeros_(adapter.up.weight)
    read_lora(path, again, "identity")
    torch.testing.assert_close(lora_output(wan, again, "identity"), expected, rtol=0, atol=1e-5)

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


def peft_base(family: str, **settings: object) -> TinyBase:
    """A base with a random LoRA injected by peft into the layers our sites name."""
    base = TinyBase(family, 2)
    layers = layers_of(make_pair(base, "lora", num_groups=2))
    config = LoraConfig(**{"r": 4, "lora_alpha": 10, "target_modules": layers, **settings})
    inject_adapter_in_model(config, base.transformer)
    base.transformer.peft_config, base.transformer._hf_peft_config_loaded = {"default": config}, True
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, parameter in base.transformer.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return base


def check_reading(family: str, path: Path, expected: torch.Tensor, alpha: float = 7.0) -> None:
    """The file gives the same output in either side of a pair of whatever alpha."""
    base = TinyBase(family, 2)
    assert not torch.allclose(expected, plain_output(base), atol=1e-3)
    for role in ("identity", "motion"):
        pair = tiny_pair(base, kind="lora", alpha=alpha)
        read_lora(path, pair, role)
        torch.testing.assert_close(lora_output(base, pair, role), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"lora_alpha": 4}, {}, {"use_rslora": True}, {"alpha_pattern": {"attn1.to_q": 3, "net.2": 20}}], ids=str
)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_saved_by_diffusers(family, tmp_path, settings):
    other = peft_base(family, **settings)
    other.transformer.save_lora_adapter(tmp_path, weight_name="lora.safetensors")
    check_reading(family, tmp_path / "lora.safetensors", plain_output(other))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_state_of_peft(family, tmp_path):
    """The bare state holds no alpha, so that it counts as the rank unless `.alpha` tensors say otherwise."""
    tensors = get_peft_model_state_dict(peft_base(family).transformer)
    layers = {name.rpartition(".lora_")[0] for name in tensors}
    save_file({**tensors, **{f"{layer}.alpha": torch.tensor(10.0) for layer in layers}}, tmp_path / "alpha.safetensors")
    check_reading(family, tmp_path / "alpha.safetensors", plain_output(peft_base(family)))
    save_file(tensors, tmp_path / "bare.safetensors")
    check_reading(family, tmp_path / "bare.safetensors", plain_output(peft_base(family, lora_alpha=4)))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_folder_of_peft(family, tmp_path):
    other = TinyBase(family, 2)
    config = LoraConfig(r=4, lora_alpha=10, target_modules=layers_of(make_pair(other, "lora", num_groups=2)), init_lora_weights=False)
    torch.manual_seed(0)
    get_peft_model(other.transformer, config).save_pretrained(tmp_path)
    check_reading(family, tmp_path / "adapter_model.safetensors", plain_output(other))


@pytest.mark.parametrize("prefix", ["diffusion_model.", "transformer.", ""])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_lora_down_and_up_names(family, tmp_path, prefix):
    other = peft_base(family)
    tensors = {}
    for name, tensor in get_peft_model_state_dict(other.transformer).items():
        layer = prefix + name.rpartition(".lora_")[0]
        tensors[f"{layer}.lora_{'down' if 'lora_A' in name else 'up'}.weight"] = tensor
        tensors[f"{layer}.alpha"] = torch.tensor(10.0)
    save_file(tensors, tmp_path / "lora.safetensors")
    check_reading(family, tmp_path / "lora.safetensors", plain_output(other))


def test_lora_round_trip(base, tmp_path):
    pair, other = tiny_pair(base, kind="lora", alpha=10.0), tiny_pair(base, kind="lora", rank=4, alpha=3.0)
    write_lora(tmp_path / "lora.safetensors", pair, "identity")
    read_lora(tmp_path / "lora.safetensors", other, "motion")
    torch.testing.assert_close(lora_output(base, other, "motion"), lora_output(base, pair, "identity"), rtol=0, atol=1e-5)


def test_an_alpha_of_null_counts_as_the_rank(wan, tmp_path):
    path, pair, other = tmp_path / "lora.safetensors", tiny_pair(wan, kind="lora"), tiny_pair(wan, kind="lora")
    write_lora(path, pair, "identity")
    save_file(load_file(path), path, {"lora_adapter_metadata": '{"transformer.lora_alpha": null}'})
    read_lora(path, other, "motion")
    torch.testing.assert_close(lora_output(wan, other, "motion"), lora_output(wan, pair, "identity"), rtol=0, atol=1e-5)


def test_loras_that_do_not_fit(wan, tmp_path):
    path = tmp_path / "lora.safetensors"
    write_lora(path, tiny_pair(wan, kind="lora"), "identity")
    whole = load_file(path)
    for settings, message in (
        ({"rank": 8}, "has rank 4 .*: set rank 4 and use"),
        ({"target_layers": ("attn1",)}, "has layer blocks.0.ffn.* this motion side lacks: make the side with fitting"),
        ({"motion_kind": "bottleneck", "identity_kind": "lora"}, "motion side is of kind 'bottleneck', which cannot hold"),
        ({"motion_kind": "none", "identity_kind": "lora"}, "motion side is of kind 'none', which cannot hold"),
    ):
        pair = tiny_pair(wan, **{"kind": "lora", **settings})
        with pytest.raises(InputError, match=message):
            read_lora(path, pair, "motion")
    pair = tiny_pair(wan, kind="lora")
    before = {name: tensor.clone() for name, tensor in pair.state_dict().items()}
    last = list(whole)[-1]
    for tensors, message in (
        ({name: tensor for name, tensor in whole.items() if ".blocks.1." not in name}, "lacks 6 layers of the identity side"),
        ({name: tensor for name, tensor in whole.items() if name != last}, "which this identity side lacks"),
        ({**whole, last: torch.zeros(7, 7)}, "unlike the pair"),
        ({**whole, "transformer.blocks.0.attn1.to_q.lora_magnitude_vector": torch.zeros(32)}, "is more than a plain LoRA"),
        ({**whole, "transformer.blocks.0.attn1.to_q.lora_B.bias": torch.zeros(32)}, "is more than a plain LoRA"),
        ({**whole, "text_encoder.layer.lora_A.weight": torch.zeros(4, 4)}, "has layer text_encoder.layer, which"),
        ({**whole, last: whole[last] * float("nan")}, "values that are no numbers .*lora_B"),
        ({"weight": torch.zeros(1)}, "holds no LoRA layers in a known naming"),
    ):
        save_file(tensors, path)
        with pytest.raises(InputError, match=message):
            read_lora(path, pair, "identity")
        assert is_same(before, dict(pair.state_dict())), f"{message}: the pair was half changed"
    path.write_bytes(b"words")
    for file in (path, tmp_path / "nowhere.safetensors"):
        with pytest.raises(InputError, match="is no complete safetensors file"):
            read_lora(file, pair, "identity")
    for metadata in ("{", "[1]", '{"transformer.lora_alpha": "much"}'):
        save_file(whole, path, {"lora_adapter_metadata": metadata})
        with pytest.raises(InputError, match=r"lora\.safetensors"):
            read_lora(path, pair, "identity")
    save_file({**whole, last.replace("lora_B.weight", "alpha"): torch.ones(2)}, path)
    with pytest.raises(InputError, match="that is no number"):
        read_lora(path, pair, "identity")
    assert is_same(before, dict(pair.state_dict()))


def test_only_lora_sides_export(wan, tmp_path):
    for kind in ("bottleneck", "bottleneck-skip", "none"):
        pair = tiny_pair(wan, identity_kind=kind, motion_kind="lora")
        with pytest.raises(InputError, match=f"identity side is of kind '{kind}', which has no LoRA form"):
            write_lora(tmp_path / "lora.safetensors", pair, "identity")
    assert list(tmp_path.iterdir()) == []
