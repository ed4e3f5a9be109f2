"""LoRA files of every kind on models of diffusers: each layer is changed as the definition of its method says."""

from __future__ import annotations

import contextlib

import pytest
import torch
from lora_forms import FORMS, Sheet
from lora_forms.diffusers_models import DiffusersModel
from safetensors.torch import save_file
from tiny import TinyBase, predict

from dualreal_core.errors import InputError
from dualreal_core.families import family_of
from dualreal_core.families.lora_names import lora_names
from dualreal_core.method.layer_forms import FormAdapter
from dualreal_core.method.pair import AdapterPair, split_key
from dualreal_core.storage.inspection import describe
from dualreal_core.storage.lora_file import load_side

BLOCKS = 3
BASES = {"wan": "wan", "cogvideox": "cogvideox", "ltxv": "ltx", "ltx20": "ltx2", "hunyuan": "hunyuan", "hunyuan15": "hunyuan 1.5"}
"""Models of the forms that diffusers has, as the tiny ones are called."""
ACTING = [name for name, form in FORMS.items() if form.base in BASES and not form.refused]
OFTEN = [
    "LoKr, w2 of two matrices, kohya names", "LoHa of peft", "DoRA, dora_scale by columns, kohya names", "OFT on inputs", "GLoRA", "BOFT",
    "Diag-OFT with rescale", "IA3 of peft", "low rank with differences of norms and biases", "to_qkv and to_kv of fused projections",
    "DoRA by rows on q, k, v apart", "LoKr on fused qkv, kohya names",
]  # fmt: skip


@pytest.fixture(scope="module")
def bases() -> dict[str, TinyBase]:
    return {}


def base_of(bases: dict[str, TinyBase], family: str) -> TinyBase:
    if family not in bases:
        bases[family] = TinyBase(family, 2 * BLOCKS if family == "hunyuan" else BLOCKS)
    return bases[family]


def written(name: str, base: TinyBase, family: str, folder) -> tuple[Sheet, dict[str, torch.Tensor]]:
    """The sheet of a form, its file, and the changes of parameters of blocks that it means."""
    model = DiffusersModel.of(family, base.transformer)
    sheet = Sheet(model.weights)
    try:
        FORMS[name].write(sheet)
    except KeyError as error:
        pytest.skip(f"{error} is no parameter that the forms know of this class")
    sheet.save(folder)
    known = {parameter: delta for parameter, delta in sheet.deltas.items() if parameter in model.places}
    return sheet, model.changes(known)


def changes(base: TinyBase, pair: AdapterPair) -> dict[str, torch.Tensor]:
    """What the adapters of a pair are worth as changes of weights and biases."""
    family, found = family_of(base.transformer), {}
    blocks = list(family.blocks(base.transformer))
    paths = [f"{part.path}.{index}" for part in family.block_lists for index in range(len(base.transformer.get_submodule(part.path)))]
    for key, adapter in pair.sides["identity"].items():
        index, layer = split_key(key)
        parts = list(family.layer_parts(blocks[index][0], layer))
        weight = torch.cat([part.linear.weight.detach() for part in parts])
        bias = None if parts[0].linear.bias is None else torch.cat([part.linear.bias.detach() for part in parts])
        if isinstance(adapter, FormAdapter):
            of_weight, of_bias = adapter.total.delta(weight), adapter.total.bias_delta(bias)
        else:
            of_weight, of_bias = adapter.up.weight @ adapter.down.weight * adapter.scaling, None
        for part in parts:
            for name, whole in (("weight", of_weight), ("bias", of_bias)):
                if whole is not None and whole[part.rows].any():
                    found[f"{paths[index]}.{part.path}.{name}"] = whole[part.rows].double()
    return found


@pytest.mark.parametrize("name", [*OFTEN, *(pytest.param(name, marks=pytest.mark.thorough) for name in ACTING if name not in OFTEN)])
def test_a_file_changes_layers_as_it_is_defined(bases, tmp_path, name):
    family = BASES[FORMS[name].base]
    base = base_of(bases, family)
    sheet, wanted = written(name, base, family, tmp_path)
    side = load_side(base.transformer, tmp_path / sheet.file, "identity", expert=FORMS[name].expert)
    found = changes(base, side.pair)
    deltas = {one.parameter: one.delta(base.transformer.get_parameter(one.parameter).detach()) for one in side.beside}
    beside = {parameter: delta.double() for parameter, delta in deltas.items() if delta is not None}
    assert set(found) <= set(wanted)
    for parameter, change in wanted.items():
        got = found[parameter] if parameter in found else beside[parameter]
        torch.testing.assert_close(got, change.to(got.dtype), rtol=1e-4, atol=1e-4 * float(change.abs().max()))
    norm = sum(float(change.square().sum()) for name, change in found.items() if name.endswith("weight")) ** 0.5
    if sheet.dtype == torch.float32 and not any(name.endswith("bias") for name in found) and FORMS[name].base != "hunyuan":
        assert side.report.norm == pytest.approx(norm, rel=1e-3)
    assert side.report.num_layers >= len({parameter.rpartition(".")[0] for parameter in found}) / 4


@pytest.mark.parametrize("name", OFTEN[:8])
def test_it_acts_in_the_forward_pass_as_merged(bases, tmp_path, name):
    family = BASES[FORMS[name].base]
    base = base_of(bases, family)
    sheet, wanted = written(name, base, family, tmp_path)
    pair = load_side(base.transformer, tmp_path / sheet.file, "identity").pair
    plain, ours = predict(base), predict(base, pair)
    merged = TinyBase(family, BLOCKS)
    with torch.no_grad():
        for parameter, change in wanted.items():
            if parameter.rpartition(".")[0] in {rows.path for rows in own_targets(base)}:
                merged.transformer.get_parameter(parameter).add_(change.float())
    expected = predict(merged)
    assert (expected - plain).abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(predict(base), plain)


def own_targets(base: TinyBase):
    return [rows for target in lora_names(base.transformer).values() for rows in target if "attn" in rows.path or "ff" in rows.path]


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.base == "wan" and form.refused])
def test_what_is_refused_says_why(bases, tmp_path, name):
    base = base_of(bases, "wan")
    sheet, _ = written(name, base, "wan", tmp_path)
    with pytest.raises(InputError, match=FORMS[name].refused):
        load_side(base.transformer, tmp_path / sheet.file, "identity")


DAMAGE = {
    "lost": lambda tensors, key: tensors.pop(key),
    "half of it": lambda tensors, key: tensors.update({key: tensors[key].flatten()[: tensors[key].numel() // 2]}),
    "turned": lambda tensors, key: tensors.update({key: tensors[key].transpose(0, -1) if tensors[key].ndim > 1 else tensors[key][None]}),
    "empty": lambda tensors, key: tensors.update({key: torch.zeros(0)}),
    "whole numbers": lambda tensors, key: tensors.update({key: tensors[key].to(torch.int32)}),
    "of more dimensions": lambda tensors, key: tensors.update({key: tensors[key][None, None]}),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", OFTEN[:8])
def test_a_damaged_layer_is_one_sentence(bases, tmp_path, name, damage):
    base = base_of(bases, "wan")
    sheet, _ = written(name, base, "wan", tmp_path)
    for key in list(sheet.tensors)[:6]:
        tensors = dict(sheet.tensors)
        DAMAGE[damage](tensors, key)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / sheet.file, sheet.metadata or None)
        for read in (lambda: load_side(base.transformer, tmp_path / sheet.file, "identity"), lambda: describe(tmp_path / sheet.file)):
            with contextlib.suppress(InputError):
                read()
