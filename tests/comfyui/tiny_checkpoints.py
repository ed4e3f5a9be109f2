"""Writes tiny checkpoints of noise that ComfyUI's own loaders accept. Runs in ComfyUI's Python, apart from the tests:

    python tiny_checkpoints.py COMFYUI_PATH MODELS_FOLDER [NAME ...]

Names are those of `variants`; without any, the four of `architectures` and a Wan VAE.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from architectures import ARCHITECTURES, WAN_VAE
from checkpoint_forms import in_form
from safetensors.torch import save_file
from variants import VARIANTS, Variant

GAIN_LIKE = ("norm.weight", "scale", "gamma", "audio_encoder.weights")
TABLE_LIKE = ("modulation", "scale_shift_table", "adaln_t_table")

VAE = (
    "comfy.ldm.wan.vae.WanVAE",
    {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    | {"temperal_downsample": [False, True, True]},
)
VAE_SEED = len(ARCHITECTURES)


def build(class_path: str, sizes: Mapping[str, object]) -> torch.nn.Module:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**sizes)


def noise_weights(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Noise for every tensor of the model, scaled by its fan-in so that activations keep a spread near one."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if key.endswith("inv_freq"):
            weights[key] = 10000 ** -(torch.arange(len(value)) / len(value))
        elif key.endswith(TABLE_LIKE):
            weights[key] = noise * 0.3
        elif key.endswith(GAIN_LIKE) or (value.ndim == 1 and key.endswith("weight")):
            weights[key] = 1 + noise * 0.05
        elif value.ndim <= 1:
            weights[key] = noise * 0.02
        else:
            weights[key] = noise / math.sqrt(math.prod(value.shape[1:]))
    return weights


def write_checkpoint(variant: Variant, folder: Path) -> Path:
    """The file of a model in a folder; made where it is not there yet."""
    file = folder / variant.checkpoint
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        placement = {"device": "cpu", "dtype": torch.float32, "operations": importlib.import_module("comfy.ops").disable_weight_init}
        model = build(f"comfy.ldm.{variant.path}", {**variant.sizes, **placement})
        weights, metadata = noise_weights(model, list(VARIANTS).index(variant.quantizes or variant.name)), {}
        if variant.form:
            weights, metadata = in_form(weights, variant.form)
        if variant.config:
            metadata = {**metadata, "config": json.dumps({"transformer": dict(variant.config)})}
        save_file(weights, file, metadata or None)
    return file


def main(comfyui_path: str, models_folder: str, *names: str) -> None:
    sys.path.insert(0, comfyui_path)
    sys.argv = [sys.argv[0], "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    models = Path(models_folder)
    for name in names or ARCHITECTURES:
        write_checkpoint(VARIANTS[name], models / "diffusion_models")
    if not names:
        (models / "vae").mkdir(parents=True, exist_ok=True)
        save_file(noise_weights(build(*VAE), VAE_SEED), models / "vae" / WAN_VAE)


if __name__ == "__main__":
    main(*sys.argv[1:])
