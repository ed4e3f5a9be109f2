"""How strong a LoRA file acts, by what trainers record: one rule, which nodes and command line share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file
from tiny import TinyBase

from dualreal_core.errors import InputError
from dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from dualreal_core.storage.inspection import describe, lines
from dualreal_core.storage.layer_patterns import fits
from dualreal_core.storage.lora_strength import LoraStrength

Q, V = "blocks.0.attn1.to_q", "blocks.1.attn1.to_v"
PEFT = ("lora_A", "lora_B")
KOHYA = ("lora_down", "lora_up")


def tensors(parts: tuple[str, str] = PEFT, prefix: str = "transformer.", alpha: float | None = None) -> dict[str, torch.Tensor]:
    """Two layers, of ranks 4 and 16."""
    found = {}
    for layer, rank in ((Q, 4), (V, 16)):
        found[f"{prefix}{layer}.{parts[0]}.weight"] = torch.ones(rank, 32)
        found[f"{prefix}{layer}.{parts[1]}.weight"] = torch.ones(32, rank)
        if alpha is not None:
            found[f"{prefix}{layer}.alpha"] = torch.tensor(alpha)
    return found


def peft_config(prefix: str = "transformer.", **fields: object) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"{prefix}{name}": value for name, value in fields.items()})}


def factors(folder, weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> dict[str, float]:
    save_file(weights, folder / "lora.safetensors", metadata)
    return {layer["layer"]: layer["scaling"] for layer in describe(folder / "lora.safetensors")["layers"]}


CASES = {
    "nothing recorded": (tensors(), {}, 1, 1),
    "a tensor": (tensors(KOHYA, alpha=8.0), {}, 2, 0.5),
    "a tensor before all else": (tensors(alpha=8.0), {**peft_config(lora_alpha=64, use_rslora=True), "ss_network_alpha": "3"}, 2, 0.5),
    "alpha of diffusers": (tensors(), peft_config(r=4, lora_alpha=16), 4, 1),
    "without a section": (tensors(), peft_config("", lora_alpha=16), 4, 1),
    "of the text encoder": (tensors(), peft_config("text_encoder.", lora_alpha=16), 1, 1),
    "both sections": (tensors(), {"lora_adapter_metadata": '{"text_encoder.lora_alpha": 1, "transformer.lora_alpha": 16}'}, 4, 1),
    "rank-stabilised": (tensors(), peft_config(lora_alpha=8, use_rslora=True), 4, 2),
    "a pattern": (tensors(), peft_config(lora_alpha=16, alpha_pattern={"to_v": 4}), 4, 0.25),
    "a pattern, rank-stabilised": (tensors(), peft_config(lora_alpha=16, alpha_pattern={V: 8}, use_rslora=True), 8, 2),
    "kohya's number": (tensors(KOHYA), {"ss_network_alpha": "16"}, 4, 1),
    "kohya's number, folded by a converter": (tensors(PEFT), {"ss_network_alpha": "16"}, 1, 1),
    "fields of the metadata": (tensors(), {"lora_alpha": "8", "lora_rank": "16"}, 0.5, 0.5),
    "alpha as a field": (tensors(), {"lora_alpha": "8"}, 2, 0.5),
    "fields, rank-stabilised": (tensors(), {"lora_alpha": "8", "lora_rank": "16", "use_rslora": "True"}, 2, 2),
    "a tensor before fields": (tensors(alpha=8.0), {"lora_alpha": "64", "lora_rank": "16"}, 2, 0.5),
    "a configuration before fields": (tensors(), {**peft_config(lora_alpha=16), "lora_alpha": "64"}, 4, 1),
    "another thing's alpha": (tensors(), {"alpha": "0.5", "lora_alpha": "auto"}, 1, 1),
    "a script's configuration": (tensors(), {"peft_config": '{"r": 4, "lora_alpha": 16}'}, 4, 1),
    "kohya's None": (tensors(KOHYA), {"ss_network_alpha": "None"}, 1, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_factor_by_what_is_recorded(name, tmp_path):
    weights, metadata, of_q, of_v = CASES[name]
    assert factors(tmp_path, weights, metadata) == {Q: of_q, V: of_v}


def test_the_factor_is_shown(tmp_path):
    factors(tmp_path, tensors(), peft_config(lora_alpha=16))
    assert "rank 4  alpha 16  factor 4 " in "".join(lines(describe(tmp_path / "lora.safetensors")))


PATTERNS = ["to_q", "attn1.to_q", Q, r"^blocks\.0\..*", r".*\.to_q$", r"blocks\.\d+\.attn1\.to_(q|k)", r"blocks\.[1-4]\..+", "q", "x?to_q"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_fit_as_in_peft(pattern):
    for name in (Q, V, "to_q", "blocks.10.attn1.to_k", "blocks.0.ffn.net.0.proj"):
        assert fits(pattern, name) == (get_pattern_key([pattern], name) == pattern), name


@pytest.mark.parametrize("pattern", ["(a+)+$x", "(a|a)*b", f"{'(' * 40}a*{')*' * 40}b", f"{'.*' * 60}b", "(.*a){9}"])
def test_no_pattern_of_a_stranger_takes_long(pattern, tmp_path):
    layer = "a" * 120
    weights = {f"{layer}.lora_A.weight": torch.ones(2, 8), f"{layer}.lora_B.weight": torch.ones(8, 2)}
    try:  # by backtracking this does not end
        assert factors(tmp_path, weights, peft_config(lora_alpha=4, alpha_pattern={pattern: 1})) == {layer: 2}
    except InputError as error:
        assert "pattern" in str(error)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"lora_adapter_metadata": "{"}, "lora_adapter_metadata how strong it is, which is damaged"),
        ({"lora_adapter_metadata": "[1]"}, "lora_adapter_metadata how strong it is, which is damaged"),
        (peft_config(lora_alpha="much"), "alpha of .* that is no number"),
        (peft_config(lora_alpha=float("inf")), "alpha of .* that is no number"),
        (peft_config(alpha_pattern=[1]), "alpha of .* that is no number"),
        (peft_config(alpha_pattern={"(": 1}), "pattern of layer names that is not understood"),
        (peft_config(alpha_pattern={r"(a)\1": 1}), "pattern of layer names that is not understood"),
    ],
)
def test_damaged_records_are_refused(metadata, message, tmp_path):
    with pytest.raises(InputError, match=rf"lora\.safetensors .*{message}"):
        factors(tmp_path, tensors(), metadata)


def test_kohyas_number_is_checked(tmp_path):
    with pytest.raises(InputError, match="no number"):
        factors(tmp_path, tensors(KOHYA), {"ss_network_alpha": "many"})


def test_a_folder_of_peft_has_it_beside(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "use_rslora": True}))
    assert LoraStrength.of(tmp_path / "adapter_model.safetensors", {}).adapter_config == {"lora_alpha": 8, "use_rslora": True}
    assert LoraStrength.of(tmp_path / "other.safetensors", {}).adapter_config == {}


@pytest.mark.parametrize(("expert", "alpha"), [(None, 2), ("high-noise", 2), ("low-noise", 12)])
def test_each_expert_has_its_own_settings(expert, alpha):
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 2, "transformer_2.lora_alpha": 12})}
    assert LoraStrength.of(Path("lora.safetensors"), metadata, expert).adapter_config == {"lora_alpha": alpha}


def with_empty(shape_down=(0, 32), shape_up=(32, 0)) -> dict[str, torch.Tensor]:
    name = "transformer.blocks.1.attn1.to_k"
    extra = {"lora_A.weight": torch.ones(shape_down), "lora_B.weight": torch.ones(shape_up), "alpha": torch.tensor(4.0)}
    return tensors() | {f"{name}.{part}": tensor for part, tensor in extra.items()}


@pytest.mark.parametrize("shapes", [((0, 32), (32, 0)), ((0,), (0,))])
def test_layers_of_rank_0_are_named_and_do_nothing(shapes, tmp_path):
    assert factors(tmp_path, with_empty(*shapes), {}) == {Q: 1, V: 1}
    description = describe(tmp_path / "lora.safetensors")
    assert description["empty"] == ["blocks.1.attn1.to_k"]
    assert lines(description)[-1].endswith("blocks.1.attn1.to_k: rank 0, does nothing")


def test_a_lora_of_empty_layers_alone_is_refused(tmp_path):
    with pytest.raises(InputError, match="all have rank 0"):
        factors(tmp_path, {name: tensor for name, tensor in with_empty().items() if "to_k" in name}, {})


def test_a_pair_leaves_updates_of_rank_0_out():
    base = TinyBase("wan", 2)
    empty = LinearUpdate(V, torch.ones(0, 32), torch.ones(32, 0))
    pair = one_sided_pair(base.transformer, "identity", [empty, LinearUpdate(Q, torch.ones(4, 32), torch.ones(32, 4))])
    assert list(pair.sides["identity"]) == ["0-attn1/to_q"]
    with pytest.raises(InputError, match="rank is not 0"):
        one_sided_pair(base.transformer, "identity", [empty])


@pytest.mark.parametrize("sizes", [((32,), (32,)), ((4, 32), (32, 3))])
def test_matrices_that_do_not_fit_are_refused(sizes, tmp_path):
    weights = {f"{Q}.{part}.weight": torch.ones(size) for part, size in zip(PEFT, sizes, strict=True)}
    with pytest.raises(InputError, match=r"which do not fit|not of two dimensions"):
        factors(tmp_path, weights, {})
