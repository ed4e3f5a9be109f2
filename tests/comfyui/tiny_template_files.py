"""Writes what official templates load beside video models, tiny and of noise: VAEs, an upsampler, a checkpoint of several parts, LoRAs.

    python tiny_template_files.py COMFYUI_PATH MODELS_FOLDER VARIANT ...

Runs in ComfyUI's Python, apart from the tests. The models of the variants are made too, where they are not there yet.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import tiny_checkpoints
import torch
from architectures import WAN_VAE
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_checkpoints import VAE, VAE_SEED, build, noise_weights
from variants import VARIANTS

RANK = 4
BLOCKS = ("blocks.", "transformer_blocks.")
TWO_EXPERTS = ("wan22_t2v", "wan22_i2v")
LTX_BLOCKS = [["res_x", 1], ["compress_all", 1], ["compress_all", 1], ["compress_all", 1], ["res_x", 1]]
LTX_VAE = {
    "_class_name": "CausalVideoAutoencoder", "dims": 3, "in_channels": 3, "out_channels": 3, "latent_channels": 128, "patch_size": 4,
    "encoder_blocks": LTX_BLOCKS, "decoder_blocks": LTX_BLOCKS, "encoder_base_channels": 16, "decoder_base_channels": 16,
    "norm_layer": "pixel_norm", "latent_log_var": "uniform", "causal_decoder": False, "timestep_conditioning": False,
}  # fmt: skip
UPSAMPLER = {"in_channels": 128, "mid_channels": 32, "num_blocks_per_stage": 1, "dims": 3}
TAEHV = "comfy.taesd.taehv.TAEHV"


def write(file: Path, weights: dict[str, torch.Tensor], config: dict | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file, {"config": json.dumps(config)} if config else None)


def write_parts(models: Path) -> None:
    """VAEs and the upsampler of LTX-2's two passes."""
    write(models / "vae" / WAN_VAE, noise_weights(build(*VAE), VAE_SEED))
    write(models / "vae" / "tiny_wan22_vae.safetensors", in_half(noise_weights(build(TAEHV, {"latent_channels": 48}), 1)))
    write(models / "vae" / "tiny_h3_vae.safetensors", in_half(noise_weights(build(TAEHV, {"latent_channels": 24}), 2)))
    write(models / "vae" / "tiny_ltx_vae.safetensors", ltx_vae(), {"vae": LTX_VAE})
    operations = {"operations": importlib.import_module("comfy.ops").disable_weight_init}
    upsampler = build("comfy.ldm.lightricks.latent_upsampler.LatentUpsampler", UPSAMPLER | operations)
    write(models / "latent_upscale_models" / "tiny_upsampler.safetensors", noise_weights(upsampler, 4), UPSAMPLER)


def ltx_vae() -> dict[str, torch.Tensor]:
    weights = noise_weights(build("comfy.ldm.lightricks.vae.causal_video_autoencoder.VideoVAE", {"version": 2, "config": LTX_VAE}), 3)
    return weights | {"per_channel_statistics.std-of-means": torch.ones(128), "per_channel_statistics.mean-of-means": torch.zeros(128)}


def in_half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: weight.half() for key, weight in weights.items()}


def write_ltx_checkpoint(models: Path, name: str) -> None:
    """The model and the video VAE in one file, as LTX-2 and 2.3 are given out."""
    file = models / "diffusion_models" / VARIANTS[name].checkpoint
    parts = {"model.diffusion_model.": load_file(file), "vae.": ltx_vae()}
    weights = {f"{prefix}{key}": weight for prefix, part in parts.items() for key, weight in part.items()}
    write(models / "checkpoints" / VARIANTS[name].checkpoint, weights, {"transformer": dict(VARIANTS[name].config), "vae": LTX_VAE})


def write_lora(models: Path, name: str) -> None:
    """Rank 4 on all matrices of the attentions in the model's own blocks."""
    generator, weights = torch.Generator().manual_seed(5), {}
    with safe_open(models / "diffusion_models" / VARIANTS[name].checkpoint, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    for key, shape in shapes.items():
        if len(shape) == 2 and key.startswith(BLOCKS) and "att" in key and key.endswith(".weight"):
            path = f"diffusion_model.{key.removesuffix('.weight')}"
            weights[f"{path}.lora_A.weight"] = torch.randn(RANK, shape[1], generator=generator) / shape[1] ** 0.5
            weights[f"{path}.lora_B.weight"] = torch.randn(shape[0], RANK, generator=generator) / 8
    write(models / "loras" / f"tiny_{name}_lora.safetensors", weights)


def write_low_expert(models: Path, name: str) -> None:
    """A second model of the same sizes, with other weights."""
    folder = models / "diffusion_models"
    weights = {key: weight.flip(0) for key, weight in load_file(folder / VARIANTS[name].checkpoint).items()}
    write(folder / f"tiny_{name}_low.safetensors", weights)


def main(comfyui_path: str, models_folder: str, *names: str) -> None:
    tiny_checkpoints.main(comfyui_path, models_folder, *names)
    models = Path(models_folder)
    write_parts(models)
    for name in names:
        write_lora(models, name)
        if name == "ltx23":
            write_ltx_checkpoint(models, name)
        if name in TWO_EXPERTS:
            write_low_expert(models, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
