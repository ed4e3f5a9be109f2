"""Inspection of every kind of file: what it records is shown, what it does not is a dash."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import WanTransformer3DModel
from golden import Golden
from safetensors.torch import load_file, save_file

from dualreal_core.errors import InputError
from dualreal_core.method.pair import new_pair
from dualreal_core.storage import export_lora, save_pair
from dualreal_core.storage.inspection import describe, lines

HEADER = {
    "base": {"name": "tiny", "encoders": "abc"},
    "prompts": {"identity": "a dog *", "motion": "a person\nskates", "trigger": "*"},
    "training": {"recipe": "dualreal", "steps": 5},
    "datasets": {"identity": ["0" * 64] * 5, "motion": []},
    "consent": "my own dog",
}


@pytest.fixture(scope="module")
def transformer():
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=16, ffn_dim=64, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip


def value(rows: list[str], name: str) -> str:
    """The value column of the first line of a name."""
    return next(row for row in rows if row.startswith(f"{name}  ")).removeprefix(name).strip()


def test_pair(transformer, tmp_path):
    pair = new_pair(transformer, bottleneck_dim=8, motion_condition_dim=6)
    torch.nn.init.ones_(pair.sides["identity"]["1-ff"].up.weight)
    save_pair(tmp_path / "pair.safetensors", pair, HEADER)
    description = json.loads(json.dumps(describe(tmp_path / "pair.safetensors")))

    assert (description["kind"], description["file"]) == ("pair", "pair.safetensors")
    assert description["config"]["family"] == "wan" and description["config"]["num_groups"] == 2
    bottleneck = 32 * 8 + 8 + 8 * 32 + 32
    assert description["parameters"]["identity"] == 4 * bottleneck
    assert description["parameters"]["motion"] == 4 * (bottleneck + 6 * 32 + 32)
    assert description["parameters"]["controller"] == sum(parameter.numel() for parameter in pair.controller.parameters())
    assert description["up_norms"]["identity"] == {"total": 16.0, "blocks": [0.0, 16.0]}
    assert description["up_norms"]["motion"]["total"] == 0
    for name, part in HEADER.items():
        assert description[name] == part
    assert set(description["provenance"]) >= {"date", "torch"}


def test_lines_of_a_pair(transformer, tmp_path):
    save_pair(tmp_path / "pair.safetensors", new_pair(transformer), HEADER)
    rows = lines(describe(tmp_path / "pair.safetensors"))
    assert value(rows, "fits") == "wan, 2 blocks of width 32"
    assert "untrained" in value(rows, "identity")
    assert value(rows, "prompts motion") == "a person skates"
    assert value(rows, "datasets identity") == "5 files (sha256 000000000000, 000000000000, 000000000000, ...)"
    assert value(rows, "datasets motion") == "-"
    assert value(rows, "training steps") == "5"
    assert value(rows, "consent") == "my own dog"
    assert all("\n" not in row for row in rows)
    column = rows[0].index("pair.safetensors")
    assert all(row[column - 1] == " " and row[column] != " " for row in rows)


def test_unrecorded_is_a_dash(transformer, tmp_path):
    save_pair(tmp_path / "pair.safetensors", new_pair(transformer))
    rows = lines(describe(tmp_path / "pair.safetensors"))
    assert [value(rows, name) for name in ("base", "prompts", "training", "datasets", "consent")] == ["-"] * 5


@pytest.mark.parametrize(
    "settings",
    [
        {"motion_kind": "none"},
        {"identity_kind": "lora", "rank": 2},
        {"has_controller": False},
        {"has_controller": False, "share_schedule": (0.4, 0.75)},
        {"motion_kind": "bottleneck-skip", "learned_range": 0.4, "share_schedule": (0.4, 0.75)},
    ],
)
def test_kinds_of_pairs(transformer, tmp_path, settings):
    pair = new_pair(transformer, **settings)
    save_pair(tmp_path / "pair.safetensors", pair)
    description = describe(tmp_path / "pair.safetensors")
    json.dumps(description)
    rows = lines(description)
    assert sum(description["parameters"].values()) == sum(parameter.numel() for parameter in pair.parameters())
    assert value(rows, "controller").startswith("none") == (pair.controller is None)
    assert ("share schedule 0.4 0.75" in value(rows, "controller")) == ("share_schedule" in settings)
    assert value(rows, "motion").startswith(settings.get("motion_kind", "bottleneck"))


def test_each_side_has_its_own_sizes(transformer, tmp_path):
    kinds = {"identity_kind": "lora", "identity_rank": 2, "identity_alpha": 3.0, "motion_bottleneck_dim": 5}
    save_pair(tmp_path / "pair.safetensors", new_pair(transformer, **kinds))
    rows = lines(describe(tmp_path / "pair.safetensors"))
    assert value(rows, "identity").startswith("lora, rank 2, alpha 3, ") and value(rows, "motion").startswith("bottleneck, width 5;")


def reference_tensors() -> dict[str, torch.Tensor]:
    """A checkpoint as the reference's first stage saves it: one side, no controller."""
    sizes = {"down_linear.weight": (4, 8), "down_linear.bias": (4,), "up_linear.weight": (8, 4), "up_linear.bias": (8,)}
    return {
        f"transformer_blocks.{block}.id_{site}_adapter.{name}": torch.ones(size)
        for block in range(2)
        for site in ("attn", "ff")
        for name, size in sizes.items()
    }


@pytest.mark.parametrize("name", ["adapter.pth", "adapter.safetensors"])
def test_reference(tmp_path, name):
    (torch.save if name.endswith(".pth") else save_file)(reference_tensors(), tmp_path / name)
    description = json.loads(json.dumps(describe(tmp_path / name)))
    assert description["kind"] == "reference"
    assert description["parameters"] == {"identity": 4 * (2 * 32 + 12), "motion": 0, "controller": 0}
    assert description["up_norms"] == {"identity": {"total": 128**0.5, "blocks": [8.0, 8.0]}}
    rows = lines(description)
    assert value(rows, "motion") == "none"
    assert value(rows, "provenance") == value(rows, "prompts") == "-"


def test_golden_reference(golden: Golden):
    description = describe(golden.folder / "adapter.pth")
    assert description["kind"] == "reference"
    assert min(description["parameters"].values()) > 0
    assert len(lines(description)) > 6


@pytest.fixture
def lora_file(transformer, tmp_path):
    pair = new_pair(transformer, identity_kind="lora", rank=4, alpha=8.0)
    for adapter in pair.sides["identity"].values():
        torch.nn.init.ones_(adapter.up.weight)
    export_lora(tmp_path / "lora.safetensors", pair, {"identity": 2 / pair.config.scale}, "diffusers")
    return tmp_path / "lora.safetensors", pair


def test_lora(lora_file):
    path, pair = lora_file
    description = json.loads(json.dumps(describe(path)))
    assert description["kind"] == "lora"
    assert description["parameters"]["lora"] == sum(parameter.numel() for parameter in pair.role_parameters("identity"))
    assert len(description["layers"]) == len(pair.sides["identity"])
    assert {layer["rank"] for layer in description["layers"]} == {4}
    first = next(layer for layer in description["layers"] if layer["layer"] == "blocks.0.attn1.to_q")
    assert first["alpha"] / first["rank"] * first["up_norm"] == pytest.approx(8 / 4 * 128**0.5)
    rows = lines(description)
    assert len(rows) == 3 + len(description["layers"])
    assert "rank 4" in rows[3] and "blocks.0.attn1" in rows[3]
    row_of_update = 8 / 4 * pair.sides["identity"]["0-attn1/to_q"].down.weight.detach().sum(0)
    assert first["norm"] == pytest.approx(float(row_of_update.norm()) * 32**0.5, rel=1e-4)


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_lora_alpha_of_other_tools(lora_file, tmp_path, alpha):
    path, _ = lora_file
    tensors = {
        name.replace("transformer.", "diffusion_model.").replace("lora_A", "lora_down").replace("lora_B", "lora_up"): tensor
        for name, tensor in load_file(path).items()
    }
    if alpha is not None:
        tensors |= {name.replace("lora_down.weight", "alpha"): torch.tensor(alpha) for name in tensors if "lora_down" in name}
    save_file(tensors, tmp_path / "other.safetensors")
    description = describe(tmp_path / "other.safetensors")
    assert {layer["alpha"] for layer in description["layers"]} == {alpha}
    assert ("alpha -" if alpha is None else "alpha 6") in lines(description)[3]


def test_lora_in_a_folder_of_peft(lora_file, tmp_path):
    """peft keeps alpha in a file beside the weights."""
    folder = tmp_path / "peft"
    folder.mkdir()
    tensors = {name.replace("transformer.", "base_model.model."): tensor for name, tensor in load_file(lora_file[0]).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 12, "alpha_pattern": {"to_q": 3}}))
    alphas = {layer["layer"]: layer["alpha"] for layer in describe(folder / "adapter_model.safetensors")["layers"]}
    assert (alphas["blocks.0.attn1.to_q"], alphas["blocks.0.attn1.to_k"]) == (3.0, 12.0)


KINDS = {
    "DoRA": {"blocks.0.attn1.to_q.dora_scale": (32, 1)},
    "DoRA as peft has it": {"transformer.blocks.0.attn1.to_q.lora_magnitude_vector": (32,)},
    "LoKr": {"blocks.1.ffn.net.2.lokr_w1": (4, 4), "blocks.1.ffn.net.2.lokr_w2": (8, 16)},
    "LoHa": {f"blocks.1.ffn.net.2.hada_w{n}_{part}": shape for n in "12" for part, shape in (("a", (32, 2)), ("b", (2, 64)))},
    "OFT": {"blocks.1.ffn.net.2.oft_blocks": (4, 8, 8)},
    "IA3": {"base_model.model.blocks.1.ffn.net.2.ia3_l": (1, 64)},
    "GLoRA": {"blocks.1.ffn.net.2.a1.weight": (64, 2), "blocks.1.ffn.net.2.a2.weight": (2, 64)}
    | {"blocks.1.ffn.net.2.b1.weight": (32, 2), "blocks.1.ffn.net.2.b2.weight": (2, 64)},
    "biases": {"blocks.1.norm.diff_b": (32,)},
    "full differences": {"blocks.1.norm.w_norm": (32,)},
    "VeRA": {"blocks.1.ffn.net.2.vera_lambda_b": (32,)},
}


@pytest.mark.parametrize("named", KINDS)
def test_every_kind_is_named(lora_file, tmp_path, named):
    tensors = {**load_file(lora_file[0]), **{name: torch.ones(shape) for name, shape in KINDS[named].items()}}
    if named.startswith("DoRA"):
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "more.safetensors")
    description = json.loads(json.dumps(describe(tmp_path / "more.safetensors")))
    kind = named.split()[0] if named.startswith("DoRA") else named
    assert kind in description["kinds"] and kind in value(lines(description), "kind")
    own = [layer for layer in description["layers"] if kind in layer["kinds"]]
    assert len(own) == (kind != "VeRA")
    assert all((layer["norm"] is None) == (kind in ("DoRA", "OFT", "IA3", "GLoRA")) for layer in own)


def test_values_that_are_no_numbers_are_named(lora_file, tmp_path):
    tensors = load_file(lora_file[0])
    tensors["transformer.blocks.0.attn1.to_q.lora_B.weight"][0] = torch.nan
    save_file(tensors, tmp_path / "nan.safetensors")
    description = json.loads(json.dumps(describe(tmp_path / "nan.safetensors")))
    assert description["broken"] == ["blocks.0.attn1.to_q"]
    assert "NaN" in next(row for row in lines(description) if "blocks.0.attn1.to_q" in row)


def test_a_dora_is_named_by_its_configuration(lora_file, tmp_path):
    save_file(load_file(lora_file[0]), tmp_path / "dora.safetensors", {"lora_adapter_metadata": '{"transformer.use_dora": true}'})
    assert "DoRA" in describe(tmp_path / "dora.safetensors")["kinds"]
    assert set(describe(lora_file[0])["kinds"]) == {"LoRA"}


def test_an_alpha_of_null_is_none_recorded(lora_file, tmp_path):
    save_file(load_file(lora_file[0]), tmp_path / "null.safetensors", {"lora_adapter_metadata": '{"transformer.lora_alpha": null}'})
    assert {layer["alpha"] for layer in describe(tmp_path / "null.safetensors")["layers"]} == {None}


ODD_ALPHAS = {
    "words": '{"transformer.lora_alpha": "much"}',
    "no pattern": '{"transformer.alpha_pattern": [1]}',
}


@pytest.mark.parametrize("metadata", ODD_ALPHAS.values(), ids=ODD_ALPHAS)
def test_an_alpha_that_is_no_number(lora_file, tmp_path, metadata):
    save_file(load_file(lora_file[0]), tmp_path / "odd.safetensors", {"lora_adapter_metadata": metadata})
    with pytest.raises(InputError, match=r"odd\.safetensors records an alpha of blocks\.\S+ that is no number"):
        describe(tmp_path / "odd.safetensors")


def test_an_alpha_of_two_numbers(lora_file, tmp_path):
    tensors = {**load_file(lora_file[0]), "transformer.blocks.0.attn1.to_q.alpha": torch.ones(2)}
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"odd\.safetensors records an alpha of blocks\.0\.attn1\.to_q that is no number"):
        describe(tmp_path / "odd.safetensors")


def test_half_a_lora(lora_file, tmp_path):
    tensors = load_file(lora_file[0])
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(InputError, match="only one of the two matrices"):
        describe(tmp_path / "half.safetensors")


def test_input_errors_pass(transformer, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        describe(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match="does not exist"):
        describe(tmp_path / "nothing.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(InputError, match="no complete safetensors"):
        describe(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no DualReal pair"):
        describe(tmp_path / "other.safetensors")
    save_pair(tmp_path / "pair.safetensors", new_pair(transformer))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "pair.safetensors").read_bytes()[:-100])
    with pytest.raises(InputError, match="no complete safetensors"):
        describe(tmp_path / "cut.safetensors")


REFUSED = {
    "whole numbers": {"blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 8, dtype=torch.int8)},
    "no kind": {"blocks.0.self_attn.q.lora_gate": torch.ones(2)},
}


@pytest.mark.parametrize("reason", [None, *REFUSED])
def test_why_a_lora_acts_on_no_model(tmp_path, reason):
    tensors = {"blocks.0.self_attn.q.lora_A.weight": torch.ones(2, 8), "blocks.0.self_attn.q.lora_B.weight": torch.ones(8, 2)}
    save_file({**tensors, **REFUSED.get(reason, {})}, tmp_path / "lora.safetensors")
    description = describe(tmp_path / "lora.safetensors")
    assert (description["refused"] is None) == (reason is None)
    assert (reason or "kind") in "".join(lines(description))


def test_a_scale_of_each_layer_and_matrices_on_end_are_seen(tmp_path):
    name = "blocks.0.self_attn.q"
    save_file(
        {f"{name}.lora_a": torch.ones(8, 2), f"{name}.lora_b": torch.ones(2, 8), f"{name}.lora_scale": torch.tensor(3.0)},
        tmp_path / "lora.safetensors",
    )
    (layer,) = describe(tmp_path / "lora.safetensors")["layers"]
    assert (layer["rank"], layer["in_dim"], layer["scaling"], layer["norm"]) == (2, 8, 3.0, pytest.approx(3 * 16))
