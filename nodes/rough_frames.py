"""Frames of latents without a VAE, as rough as ComfyUI's own previews while it samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from comfy.latent_formats import LatentFormat

NUM_DEVIATIONS = 2.0
LARGEST = 1e4
"""Of a value that counts: latents of a sampling that has gone wrong may hold any, and a progress picture must not stop it."""


def rough_frames(latents: torch.Tensor, latent_format: LatentFormat) -> torch.Tensor:
    """latents: (C, F, h, w) as the DiT sees them -> (F, 3, h, w) in [-1, 1]

    By the format's own colours, or by the three directions in which the latents vary most.
    """
    values = torch.nan_to_num(latents.detach().float().cpu()).clamp(-LARGEST, LARGEST).movedim(0, -1)  # (F, h, w, C)
    factors = getattr(latent_format, "latent_rgb_factors", None)
    if factors is not None and len(factors) == values.shape[-1] and getattr(latent_format, "latent_rgb_factors_reshape", None) is None:
        bias = getattr(latent_format, "latent_rgb_factors_bias", None)
        colours = values @ torch.tensor(factors)
        frames = (colours if bias is None else colours + torch.tensor(bias)).clamp(-1, 1)
    else:
        flat = values.flatten(0, 2)
        flat = flat - flat.mean(0)
        _, axes = torch.linalg.eigh(flat.T @ flat + 1e-6 * torch.eye(flat.shape[1]))
        colours = flat @ axes[:, -3:]
        frames = (colours / (NUM_DEVIATIONS * colours.std(0).clamp(min=1e-6))).clamp(-1, 1).reshape(*values.shape[:3], -1)
    return frames.movedim(-1, 1)
