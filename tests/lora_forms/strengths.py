"""Where files say how strong they are, and in which precision they hold their matrices; all on Wan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import torch

from .layers import WAN, flat, wan_name
from .sheet import Form, Sheet

KOHYA = ("lora_down.weight", "lora_up.weight")


def with_alpha(alpha: Callable[[], torch.Tensor]):
    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=alpha())

    return write


def network_alpha(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, scale=1 / 4)
    sheet.metadata |= {"ss_network_alpha": "1.0", "ss_network_dim": "4"}


def lora_alpha_keys(sheet: Sheet) -> None:
    """A number beside each layer, called as in peft's configuration."""
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=2 / 4)
        sheet.tensors[f"transformer.{wan_name(layer)}.lora_alpha"] = torch.tensor(2.0)


def finetrainers(sheet: Sheet) -> None:
    """peft's settings under a name of its own."""
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=64 / 4)
    sheet.metadata["lora_config"] = json.dumps({"r": 4, "lora_alpha": 64, "init_lora_weights": True, "target_modules": ["to_q"]})


def tensors_before_metadata(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", alpha=torch.tensor(2.0))
    sheet.settings(r=4, lora_alpha=32)


def peft_model(**fields: object):
    """A folder of peft: rank-stabilized, patterns, or all of it, by its configuration."""

    def write(sheet: Sheet) -> None:
        ranks, alphas = fields.get("rank_pattern") or {}, fields.get("alpha_pattern") or {}
        for layer in WAN:
            name = wan_name(layer)
            rank = next((value for key, value in ranks.items() if name == key or name.endswith(f".{key}")), fields["r"])
            alpha = next((value for key, value in alphas.items() if name == key or name.endswith(f".{key}")), fields["lora_alpha"])
            scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
            sheet.lora(layer, f"base_model.model.{name}", rank=rank, scale=scale)
        sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": "LORA", "base_model_name_or_path": "Wan", **fields}

    return write


def regular_pattern(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"base_model.model.{wan_name(layer)}", scale=(16 if layer.startswith(("blocks.0", "blocks.1")) else 4) / 4)
    sheet.file = "adapter_model.safetensors"
    sheet.config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "alpha_pattern": {r"blocks\.[01]\..*": 16}}


def save_lora_adapter(sheet: Sheet) -> None:
    """diffusers' save of one model: bare names, settings without prefix."""
    for layer in WAN:
        sheet.lora(layer, wan_name(layer), scale=12 / 4)
    sheet.metadata["lora_adapter_metadata"] = json.dumps({"r": 4, "lora_alpha": 12, "use_rslora": False, "alpha_pattern": {}})


def rank_stabilized_metadata(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=3 / math.sqrt(4))
    sheet.settings(r=4, lora_alpha=3, use_rslora=True)


def rank_stabilized_lycoris(sheet: Sheet) -> None:
    """Its alpha is kept multiplied by the root of the rank, to be divided by the rank."""
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=torch.tensor(3.0 * math.sqrt(4)))
    sheet.metadata["ss_network_args"] = json.dumps({"rs_lora": "True"})


def ranks_by_layer(sheet: Sheet) -> None:
    for rank, layer in enumerate(WAN, 1):
        sheet.lora(layer, f"diffusion_model.{layer}", rank=rank)


def resized(sheet: Sheet) -> None:
    """Ranks and alphas of their own for each layer, some of rank 0."""
    for number, layer in enumerate(WAN):
        if number == 1:
            out, inner = sheet.widths(layer)
            sheet.tensors |= {
                f"lora_unet_{flat(layer)}.lora_down.weight": torch.zeros(0, inner), f"lora_unet_{flat(layer)}.alpha": torch.tensor(0.0),
                f"lora_unet_{flat(layer)}.lora_up.weight": torch.zeros(out, 0),
            }  # fmt: skip
        else:
            sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, rank=number + 1, alpha=torch.tensor(1.5 * (number + 1)))
    sheet.left_out = ["rank 0"]


def peft_bias(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"base_model.model.{wan_name(layer)}", scale=2.0)
        bias = sheet.put(f"base_model.model.{wan_name(layer)}.lora_B.bias", 0.1 * sheet.noise(sheet.widths(layer)[0]))
        sheet.change(f"{layer}.bias", 2.0 * bias)
    sheet.file = "adapter_model.safetensors"
    sheet.config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_bias": True}


def zero_bias(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"base_model.model.{wan_name(layer)}")
        sheet.put(f"base_model.model.{wan_name(layer)}.lora_B.bias", torch.zeros(sheet.widths(layer)[0]))


def in_precision(dtype: torch.dtype):
    def write(sheet: Sheet) -> None:
        sheet.dtype = dtype
        for layer in WAN:
            sheet.lora(layer, f"diffusion_model.{layer}", alpha=torch.tensor(2.0))

    return write


PATTERNS = {"rank_pattern": {"attn1.to_q": 2}, "alpha_pattern": {"attn1.to_q": 6, "ffn.net.2": 1}}
FORMS = (
    Form("alpha of 0 dimensions, float32", "kohya", "wan", with_alpha(lambda: torch.tensor(8.0))),
    Form("alpha of 1 dimension", "converters", "wan", with_alpha(lambda: torch.tensor([8.0]))),
    Form("alpha int64", "musubi-tuner", "wan", with_alpha(lambda: torch.tensor(8))),
    Form("alpha bf16", "musubi-tuner --save_precision bf16", "wan", with_alpha(lambda: torch.tensor(3.0, dtype=torch.bfloat16))),
    Form("ss_network_alpha alone", "kohya without alpha tensors", "wan", network_alpha),
    Form("lora_alpha keys", "FastVideo, converters", "wan", lora_alpha_keys),
    Form("lora_config in metadata", "finetrainers", "wan", finetrainers),
    Form("alpha as tensors and another in metadata", "SimpleTuner", "wan", tensors_before_metadata),
    Form("adapter_config.json: alpha", "peft save_pretrained", "wan", peft_model(r=4, lora_alpha=32)),
    Form("adapter_config.json: rsLoRA", "peft save_pretrained", "wan", peft_model(r=4, lora_alpha=3, use_rslora=True)),
    Form("adapter_config.json: rank and alpha patterns", "peft save_pretrained", "wan", peft_model(r=4, lora_alpha=8, **PATTERNS)),
    Form(
        "adapter_config.json: patterns and rsLoRA",
        "peft save_pretrained",
        "wan",
        peft_model(r=4, lora_alpha=8, use_rslora=True, **PATTERNS),
    ),
    Form("adapter_config.json: alpha pattern as regular expression", "peft save_pretrained", "wan", regular_pattern),
    Form("lora_adapter_metadata without prefix, bare names", "diffusers save_lora_adapter", "wan", save_lora_adapter),
    Form("lora_adapter_metadata: rsLoRA", "diffusers", "wan", rank_stabilized_metadata),
    Form("rs_lora of LyCORIS", "LyCORIS", "wan", rank_stabilized_lycoris),
    Form("ranks by layer, no alpha", "diffusion-pipe, extractors", "wan", ranks_by_layer),
    Form("resized, layers of rank 0", "kohya resize_lora", "wan", resized),
    Form("lora_bias", "peft", "wan", peft_bias),
    Form("lora_bias of zeros", "peft", "wan", zero_bias),
    Form("fp16", "any", "wan", in_precision(torch.float16)),
    Form("bf16", "any", "wan", in_precision(torch.bfloat16)),
    Form("float8_e4m3fn", "converters", "wan", in_precision(torch.float8_e4m3fn)),
    Form("float8_e5m2", "converters", "wan", in_precision(torch.float8_e5m2)),
)
