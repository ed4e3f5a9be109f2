"""Weights of a tiny model in lower precision, as large models are shared: all of a type, or quantized with a scale for each matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "int8_tensorwise": torch.int8}
LARGEST = {"float8_e4m3fn": 448, "int8_tensorwise": 127}


def in_form(weights: Mapping[str, torch.Tensor], form: str) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """Weights in a form of `TYPES`, and the file's metadata; those in `LARGEST` quantize the blocks' matrices, but not of modulations."""
    written, layers = {}, {}
    for name, weight in weights.items():
        if form not in LARGEST:
            written[name] = weight.to(TYPES[form])
        elif weight.ndim == 2 and "blocks." in name and "adaln" not in name:
            scale = weight.abs().max() / LARGEST[form]
            numbers = weight / scale
            written[name] = (numbers.round() if form == "int8_tensorwise" else numbers).to(TYPES[form])
            written[f"{name}_scale"] = scale
            layers[name.removesuffix(".weight")] = {"format": form}
        else:
            written[name] = weight
    return written, {"_quantization_metadata": json.dumps({"layers": layers})} if layers else None
