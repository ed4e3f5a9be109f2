"""Writes tiny checkpoints of noise that ComfyUI's own loaders accept. Runs in ComfyUI's Python, apart from the tests:

    python tiny_checkpoints.py COMFYUI_PATH MODELS_FOLDER
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import torch
from architectures import ARCHITECTURES, WAN_VAE
from safetensors.torch import save_file

NUM_BLOCKS = 3
GAIN_LIKE = ("norm.weight", "scale", "gamma")
TABLE_LIKE = ("modulation", "scale_shift_table")

# Sizes that ComfyUI's detection reads from the weights are as small as it can name them: it takes the head count of Wan
# and HunyuanVideo from 128-wide heads, of CogVideoX from 64-wide ones; LTX-Video always has 32 heads; HunyuanVideo's rotary
# axes must fill its head; text is 4096 wide in all of them.
MODELS = {
    "wan": (
        "comfy.ldm.wan.model.WanModel",
        {"model_type": "t2v", "dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": NUM_BLOCKS, "in_dim": 16, "out_dim": 16}
        | {"text_dim": 4096, "freq_dim": 256, "cross_attn_norm": True},
    ),
    "cogvideox": (
        "comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel",
        {"num_attention_heads": 4, "num_layers": NUM_BLOCKS, "time_embed_dim": 64, "use_rotary_positional_embeddings": True},
    ),
    "ltxv": (
        "comfy.ldm.lightricks.model.LTXVModel",
        {"cross_attention_dim": 256, "attention_head_dim": 8, "num_layers": NUM_BLOCKS},
    ),
    "hunyuan": (
        "comfy.ldm.hunyuan_video.model.HunyuanVideo",
        {"in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1}
        | {"vec_in_dim": 768, "context_in_dim": 4096, "depth": NUM_BLOCKS, "depth_single_blocks": NUM_BLOCKS}
        | {"axes_dim": [16, 56, 56], "theta": 256, "qkv_bias": True, "guidance_embed": True, "byt5": False, "meanflow": False}
        | {"use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False},
    ),
}
VAE = (
    "comfy.ldm.wan.vae.WanVAE",
    {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    | {"temperal_downsample": [False, True, True]},
)


def build(class_path: str, sizes: dict) -> torch.nn.Module:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**sizes)


def noise_weights(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Noise for every tensor of the model, scaled by its fan-in so that activations keep a spread near one."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if key.endswith(TABLE_LIKE):
            weights[key] = noise * 0.3
        elif key.endswith(GAIN_LIKE) or (value.ndim == 1 and key.endswith("weight")):
            weights[key] = 1 + noise * 0.05
        elif value.ndim <= 1:
            weights[key] = noise * 0.02
        else:
            weights[key] = noise / math.sqrt(math.prod(value.shape[1:]))
    return weights


def main(comfyui_path: str, models_folder: str) -> None:
    sys.path.insert(0, comfyui_path)
    sys.argv = [sys.argv[0], "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    placement = {"device": "cpu", "dtype": torch.float32, "operations": importlib.import_module("comfy.ops").disable_weight_init}
    targets = [(f"diffusion_models/{ARCHITECTURES[name].checkpoint}", path, sizes | placement) for name, (path, sizes) in MODELS.items()]
    targets.append((f"vae/{WAN_VAE}", *VAE))
    for seed, (target, class_path, sizes) in enumerate(targets):
        file = Path(models_folder) / target
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(noise_weights(build(class_path, sizes), seed), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
