"""The four video models the pack is tested on: file names of their tiny checkpoints, and what their inputs look like."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """A tiny random model. `latent_shape` is (channels, frames, height, width) of the graphs' empty latent."""

    name: str
    checkpoint: str
    latent_shape: tuple[int, int, int, int]
    pooled_dim: int = 0
    needs_text_mask: bool = False
    text_dim: int = 4096
    dit: str = ""  # class name of the diffusion model


WAN = Architecture("wan", "tiny_wan.safetensors", (16, 3, 6, 8), dit="WanModel")
COGVIDEOX = Architecture("cogvideox", "tiny_cogvideox.safetensors", (16, 3, 6, 8), dit="CogVideoXTransformer3DModel")
LTXV = Architecture("ltxv", "tiny_ltxv.safetensors", (128, 2, 3, 4), needs_text_mask=True, dit="LTXVModel")
HUNYUAN = Architecture("hunyuan", "tiny_hunyuan_video.safetensors", (16, 3, 6, 8), pooled_dim=768, dit="HunyuanVideo")

ARCHITECTURES = {architecture.name: architecture for architecture in (WAN, COGVIDEOX, LTXV, HUNYUAN)}
WAN_VAE = "tiny_wan_vae.safetensors"
