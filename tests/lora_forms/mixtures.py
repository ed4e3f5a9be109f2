"""Kinds where they are seldom met: several in one file, outside of blocks, on rows of fused layers and in another order of rows."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from . import definitions
from .layers import LTX, WAN, Part, flat, wan_name
from .other_trainers import h3_of, hunyuan_of
from .sheet import Form, Sheet

KOHYA = ("lora_down.weight", "lora_up.weight")
Write = Callable[[Sheet, str, torch.Tensor], torch.Tensor]
"""Writes an update of a weight under a name; gives the change."""


def dora_by_rows(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    return _dora(sheet, name, weight, weight.norm(dim=1, keepdim=True))


def dora_by_columns(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    return _dora(sheet, name, weight, weight.norm(dim=0, keepdim=True))


def _dora(sheet: Sheet, name: str, weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    change = lora(sheet, name, weight)
    magnitude = sheet.put(f"{name}.dora_scale", norm * (1 + 0.2 * sheet.noise(*norm.shape)))
    return definitions.decomposed(weight, change, magnitude)


def lora(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    out, inner = weight.shape
    down = sheet.put(f"{name}.lora_down.weight", sheet.noise(4, inner) / inner**0.5)
    up = sheet.put(f"{name}.lora_up.weight", 0.3 * sheet.noise(out, 4))
    sheet.tensors[f"{name}.alpha"] = torch.tensor(2.0)
    return definitions.low_rank(up, down, 0.5)


def lokr(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    out, inner = weight.shape
    w1 = sheet.put(f"{name}.lokr_w1", 0.5 * sheet.noise(4, 4))
    w2 = sheet.put(f"{name}.lokr_w2", 2 * sheet.noise(out // 4, inner // 4) / inner)
    sheet.tensors[f"{name}.alpha"] = torch.tensor(1e10)
    return definitions.kronecker(w1, w2)


def loha(sheet: Sheet, name: str, weight: torch.Tensor, rank: int = 4) -> torch.Tensor:
    out, inner = weight.shape
    a = [sheet.put(f"{name}.hada_w{n}_a", 0.4 * sheet.noise(out, rank)) for n in (1, 2)]
    b = [sheet.put(f"{name}.hada_w{n}_b", sheet.noise(rank, inner) / inner**0.25) for n in (1, 2)]
    sheet.tensors[f"{name}.alpha"] = torch.tensor(2.0)
    return definitions.hadamard(a[0], b[0], a[1], b[1], 2.0 / rank)


def oft(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    blocks = sheet.put(f"{name}.oft_blocks", 0.15 * sheet.noise(len(weight) // 8, 8, 8))
    return definitions.orthogonal_rows(weight, blocks)


def oft_on_inputs(sheet: Sheet, name: str, weight: torch.Tensor, is_shared: bool = False) -> torch.Tensor:
    vectors = sheet.put(f"{name}.oft_R.weight", 0.1 * sheet.noise(1 if is_shared else weight.shape[1] // 8, 28))
    return definitions.orthogonal_columns(weight, vectors.expand(weight.shape[1] // 8, -1))


def glora(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    out, inner = weight.shape
    shapes = {"a1": (inner, 4), "a2": (4, inner), "b1": (out, 4), "b2": (4, inner)}
    parts = {key: sheet.put(f"{name}.{key}.weight", 0.3 * sheet.noise(*shape) / shape[1] ** 0.5) for key, shape in shapes.items()}
    sheet.tensors[f"{name}.alpha"] = torch.tensor(4.0)
    return definitions.generalized(weight, **parts)


def ia3(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    factors = sheet.put(f"{name}.weight", 0.3 * sheet.noise(len(weight)))
    sheet.tensors[f"{name}.on_input"] = torch.tensor(0)
    return definitions.amplified(weight, factors[:, None])


def difference(sheet: Sheet, name: str, weight: torch.Tensor) -> torch.Tensor:
    return sheet.put(f"{name}.diff", 0.3 * sheet.noise(*weight.shape) / weight.shape[1] ** 0.5)


KINDS: tuple[Write, ...] = (dora_by_rows, dora_by_columns, lokr, loha, oft, oft_on_inputs, glora, ia3, difference)


def kinds_outside(sheet: Sheet) -> None:
    """One kind to a layer; among them such that read no tokens."""
    layers = (
        "head.head", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1", "text_embedding.0",
        "blocks.0.self_attn.q", "blocks.1.ffn.0", "blocks.2.cross_attn.v",
    )  # fmt: skip
    for layer, kind in zip(layers, KINDS, strict=True):
        sheet.change(f"{layer}.weight", kind(sheet, f"lora_unet_{flat(layer)}", sheet.weight(layer)))


def on_parts(parts: Callable[[Sheet], list[Part]], first: int = 0, naming: Callable[[str], str] = "transformer.{}".format):
    """One kind to a part, from one of them on."""

    def write(sheet: Sheet) -> None:
        for number, part in enumerate(parts(sheet)):
            kind, weight = KINDS[(first + number) % len(KINDS)], sheet.weight(part.layer, part.rows)
            if part.order is not None:
                weight = weight[part.order]  # as the trainer has it
            sheet.change(f"{part.layer}.weight", kind(sheet, naming(part.name), weight), part.rows, part.order)

    return write


def loha_of_high_rank(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.change(f"{layer}.weight", loha(sheet, f"lora_unet_{flat(layer)}", sheet.weight(layer), 20))


def shared_rotation(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.change(f"{layer}.weight", oft_on_inputs(sheet, f"base_model.model.{wan_name(layer)}", sheet.weight(layer), True))
    sheet.file, sheet.config = (
        "adapter_model.safetensors",
        {"peft_type": "OFT", "peft_version": "0.21.2", "oft_block_size": 8, "block_share": True},
    )


def rotation_of_old_peft(sheet: Sheet) -> None:
    """Its series ended with twice the last power, and its configuration does not name the version."""
    for layer in WAN:
        weight = sheet.weight(layer)
        vectors = sheet.put(f"base_model.model.{wan_name(layer)}.oft_R.weight", 0.1 * sheet.noise(weight.shape[1] // 8, 28))
        sheet.change(f"{layer}.weight", definitions.orthogonal_columns(weight, vectors, num_terms=6) - _last_power(weight, vectors))
    sheet.file = "adapter_model.safetensors"
    sheet.config = {"peft_type": "OFT", "oft_block_size": 8, "use_cayley_neumann": True, "num_cayley_neumann_terms": 5}


def _last_power(weight: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """W (Q^5)^T, which a series of six terms has once and one of five not at all."""
    skew = torch.zeros(len(vectors), 8, 8, dtype=weight.dtype)
    rows, columns = torch.triu_indices(8, 8, 1)
    skew[:, rows, columns] = vectors
    fifth = torch.linalg.matrix_power(skew - skew.transpose(1, 2), 5)
    return torch.einsum("okc,knc->okn", weight.reshape(len(weight), len(vectors), 8), fifth).reshape(weight.shape)


def pattern_in_metadata(sheet: Sheet) -> None:
    for layer in WAN:
        alpha = 12 if layer.endswith("self_attn.q") else 2
        sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=alpha / 4)
    sheet.settings(r=4, lora_alpha=2, alpha_pattern={"blocks.0.attn1.to_q": 12})


def settings_of_each_expert(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", acts=False)
        sheet.lora(layer, f"transformer_2.{wan_name(layer)}", scale=12 / 4)
    fields = {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer_2.r": 4, "transformer_2.lora_alpha": 12}
    sheet.metadata["lora_adapter_metadata"] = json.dumps(fields)
    sheet.left_out = ["high"]


def text_encoder_settings(sheet: Sheet) -> None:
    """Of another model, and no word on the DiT."""
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}")
    sheet.foreign("text_encoder.encoder.block.0.layer.0.SelfAttention.q", 64, 64)
    sheet.metadata["lora_adapter_metadata"] = json.dumps({"text_encoder.r": 4, "text_encoder.lora_alpha": 32})
    sheet.left_out = ["text encoder"]


def flat_magnitude(sheet: Sheet) -> None:
    for layer in WAN:
        weight, name = sheet.weight(layer), f"lora_unet_{flat(layer)}"
        change = lora(sheet, name, weight)
        magnitude = sheet.put(f"{name}.dora_scale", weight.norm(dim=1) * (1 + 0.2 * sheet.noise(len(weight))))
        sheet.change(f"{layer}.weight", definitions.decomposed(weight, change, magnitude))


def as_convolutions(sheet: Sheet) -> None:
    """Matrices with two dimensions of 1 behind, as scripts for image models write them."""
    for layer in WAN:
        name = f"lora_unet_{flat(layer)}"
        sheet.change(f"{layer}.weight", lora(sheet, name, sheet.weight(layer)))
        for part in KOHYA:
            sheet.tensors[f"{name}.{part}"] = sheet.tensors[f"{name}.{part}"][..., None, None]


def sound_outside(sheet: Sheet) -> None:
    for layer in (*LTX, "audio_patchify_proj", "audio_adaln_single.linear", "audio_proj_out", "adaln_single.linear"):
        sheet.lora(layer, f"diffusion_model.{layer}")


FORMS = (
    Form("each kind, inside and outside of blocks", "LyCORIS presets", "wan", kinds_outside),
    Form("each kind on q, k, v apart", "any", "hunyuan", on_parts(hunyuan_of)),
    Form("each kind on q, k, v apart, others", "any", "hunyuan", on_parts(hunyuan_of, 5)),
    Form("each kind on q, k, v apart, kohya names", "any", "hunyuan", on_parts(hunyuan_of, 3, lambda name: f"lora_unet_{flat(name)}")),
    *(
        Form(f"MiniMax-H3, diffusers names: {kind.__name__.replace('_', ' ')} on the swapped halves", "any", "h3", on_parts(h3_of, first))
        for first, kind in (
            (5, dora_by_rows),
            (6, dora_by_columns),
            (7, lokr),
            (8, loha),
            (0, oft),
            (1, oft_on_inputs),
            (2, glora),
            (3, ia3),
        )
    ),
    Form("LoHa of rank 20", "LyCORIS", "wan", loha_of_high_rank),
    Form("OFT on inputs, one rotation for all", "peft OFTConfig block_share", "wan", shared_rotation),
    Form("OFT on inputs of peft before 0.18", "peft 0.17", "wan", rotation_of_old_peft),
    Form("lora_adapter_metadata: alpha pattern", "diffusers", "wan", pattern_in_metadata),
    Form("Wan 2.2, settings of transformer and transformer_2", "scripts", "wan22_t2v", settings_of_each_expert, "low-noise"),
    Form("lora_adapter_metadata of a text encoder", "diffusers", "wan", text_encoder_settings),
    Form("DoRA, dora_scale of 1 dimension", "converters", "wan", flat_magnitude),
    Form("matrices as 1x1 convolutions", "scripts for image models", "wan", as_convolutions),
    Form("LTX-2, sound outside of blocks", "LTX-2 trainers", "ltx20", sound_outside),
)
