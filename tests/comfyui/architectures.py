"""The four video models of the longer tests, one of each kind, out of all in `variants`."""

from __future__ import annotations

from variants import VARIANTS, Variant

Architecture = Variant
ARCHITECTURES = {name: VARIANTS[name] for name in ("wan", "cogvideox", "ltxv", "hunyuan")}
WAN_VAE = "tiny_wan_vae.safetensors"
