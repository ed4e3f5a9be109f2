"""DoRA in every spelling: the norm is of the sum of weight and update, as in the paper, peft, LyCORIS and OneTrainer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from . import definitions
from .layers import WAN, flat, wan_name
from .other_trainers import hunyuan_of
from .sheet import Form, Rows, Sheet

KOHYA, PEFT = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")


def dora(
    sheet: Sheet, layer: str, name: str, key: str, *, parts: tuple[str, str] = PEFT, alpha: float | None = None, scale: float = 1.0,
    shape: str = "rows", rows: Rows | None = None,
) -> None:  # fmt: skip
    """A layer with a magnitude that has moved from the weight's own norm.

    Args:
        key: of the magnitude.
        alpha: written as a tensor, of rank 4, before `scale` counts.
        shape: 'flat' (out,), 'rows' (out, 1) or 'columns' (1, in).
    """
    weight = sheet.weight(layer, rows)
    down, up = sheet.matrices(layer, name, parts, 4, rows)
    if alpha is not None:
        sheet.tensors[f"{name}.alpha"] = torch.tensor(alpha)
        scale *= alpha / 4
    norm = weight.norm(dim=0, keepdim=True) if shape == "columns" else weight.norm(dim=1, keepdim=True)
    magnitude = norm * (1 + 0.2 * sheet.noise(*norm.shape))
    magnitude = sheet.put(f"{name}.{key}", magnitude.flatten() if shape == "flat" else magnitude)
    sheet.change(f"{layer}.weight", definitions.decomposed(weight, definitions.low_rank(up, down, scale), magnitude), rows)


def on_wan(naming: Callable[[str], str], key: str, dtype: torch.dtype = torch.float32, **how: object):
    def write(sheet: Sheet) -> None:
        sheet.dtype = dtype
        for layer in WAN:
            dora(sheet, layer, naming(layer), key, **how)

    return write


def peft_folder(**fields: object):
    def write(sheet: Sheet) -> None:
        scale = fields["lora_alpha"] / (math.sqrt(4) if fields.get("use_rslora") else 4)
        for layer in WAN:
            dora(sheet, layer, f"base_model.model.{wan_name(layer)}", "lora_magnitude_vector", scale=scale, shape="flat")
        sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": "LORA", "r": 4, "use_dora": True, **fields}

    return write


def diffusers_dora(sheet: Sheet) -> None:
    for layer in WAN:
        dora(sheet, layer, f"transformer.{wan_name(layer)}", "lora_magnitude_vector.weight", scale=2.0, shape="flat")
    sheet.settings(r=4, lora_alpha=8, use_dora=True)


def on_parts(shape: str):
    """q, k and v apart, so the norm of a column is of their own rows alone."""

    def write(sheet: Sheet) -> None:
        for part in hunyuan_of(sheet):
            name = f"lora_transformer_{flat(part.name)}"
            dora(sheet, part.layer, name, "dora_scale", parts=KOHYA, alpha=2.0, shape=shape, rows=part.rows)

    return write


def lokr_with_magnitude(sheet: Sheet) -> None:
    for layer in WAN:
        name, (out, inner), weight = f"lora_unet_{flat(layer)}", sheet.widths(layer), sheet.weight(layer)
        w1 = sheet.put(f"{name}.lokr_w1", 0.5 * sheet.noise(4, 4))
        w2 = sheet.put(f"{name}.lokr_w2", 0.3 * sheet.noise(out // 4, inner // 4) / inner**0.5)
        sheet.tensors[f"{name}.alpha"] = torch.tensor(4.0)
        norm = weight.norm(dim=1, keepdim=True)
        magnitude = sheet.put(f"{name}.dora_scale", norm * (1 + 0.2 * sheet.noise(*norm.shape)))
        sheet.change(f"{layer}.weight", definitions.decomposed(weight, definitions.kronecker(w1, w2), magnitude))


def loha_with_magnitude(sheet: Sheet) -> None:
    for layer in WAN:
        name, (out, inner), weight = f"lora_unet_{flat(layer)}", sheet.widths(layer), sheet.weight(layer)
        parts = [sheet.put(f"{name}.hada_w{n}_a", 0.3 * sheet.noise(out, 4)) for n in (1, 2)]
        others = [sheet.put(f"{name}.hada_w{n}_b", sheet.noise(4, inner) / inner**0.25) for n in (1, 2)]
        sheet.tensors[f"{name}.alpha"] = torch.tensor(2.0)
        norm = weight.norm(dim=0, keepdim=True)
        magnitude = sheet.put(f"{name}.dora_scale", norm * (1 + 0.2 * sheet.noise(*norm.shape)))
        change = definitions.hadamard(parts[0], others[0], parts[1], others[1], 0.5)
        sheet.change(f"{layer}.weight", definitions.decomposed(weight, change, magnitude))


def kohya_name(layer: str) -> str:
    return f"lora_unet_{flat(layer)}"


FORMS = (
    Form("DoRA, dora_scale by rows, kohya names", "LyCORIS wd_on_out", "wan", on_wan(kohya_name, "dora_scale", parts=KOHYA, alpha=2.0)),
    Form(
        "DoRA, dora_scale by columns, kohya names",
        "LyCORIS, OneTrainer",
        "wan",
        on_wan(kohya_name, "dora_scale", parts=KOHYA, alpha=2.0, shape="columns"),
    ),
    Form(
        "DoRA, dora_scale and A/B on native names",
        "OneTrainer comfy",
        "wan",
        on_wan("diffusion_model.{}".format, "dora_scale", alpha=2.0, shape="columns"),
    ),
    Form("DoRA, lora_magnitude_vector, folder", "peft save_pretrained", "wan", peft_folder(lora_alpha=8)),
    Form("DoRA and rsLoRA, folder", "peft save_pretrained", "wan", peft_folder(lora_alpha=3, use_rslora=True)),
    Form("DoRA, lora_magnitude_vector.weight, diffusers names", "diffusers, OneTrainer diffusers", "wan", diffusers_dora),
    Form(
        "DoRA, lora_magnitude_vector on native names",
        "diffusion-pipe forks",
        "wan",
        on_wan("diffusion_model.{}".format, "lora_magnitude_vector", shape="flat"),
    ),
    Form(
        "DoRA, lora_magnitude_vector.weight on native names",
        "converters",
        "wan",
        on_wan("diffusion_model.{}".format, "lora_magnitude_vector.weight", shape="flat"),
    ),
    Form(
        "DoRA, .default.weight of a raw state dict",
        "peft state_dict()",
        "wan",
        on_wan(
            lambda one: f"base_model.model.{wan_name(one)}",
            "lora_magnitude_vector.default.weight",
            parts=("lora_A.default.weight", "lora_B.default.weight"),
            shape="flat",
        ),
    ),
    Form("DoRA, .magnitude", "ai-toolkit", "wan", on_wan("diffusion_model.{}".format, "magnitude", shape="flat")),
    Form("DoRA, bf16", "LyCORIS", "wan", on_wan(kohya_name, "dora_scale", torch.bfloat16, parts=KOHYA, alpha=2.0)),
    Form("DoRA by rows on q, k, v apart", "OneTrainer legacy", "hunyuan", on_parts("rows")),
    Form("DoRA by columns on q, k, v apart", "OneTrainer legacy", "hunyuan", on_parts("columns")),
    Form("LoKr with dora_scale", "LyCORIS", "wan", lokr_with_magnitude),
    Form("LoHa with dora_scale by columns", "LyCORIS", "wan", loha_with_magnitude),
)
