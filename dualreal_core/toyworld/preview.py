"""Colours straight from latents, for previews while sampling: the best linear guess, fitted to a codec."""

from __future__ import annotations

import torch

from . import world
from .codec import CELLS_PER_LATENT, ToyCodec


@torch.no_grad()
def fit_latent_colors(codec: ToyCodec, num_stills: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Least squares from latents to the mean colour of their cells, in [-1, 1]: factors (16, 3) and bias (3,)."""
    generator = torch.Generator().manual_seed(0)
    looks, backgrounds = world.all_looks(), list(world.BACKGROUNDS)
    stride = len(looks) // num_stills
    stills = [world.draw_still(looks[index * stride], backgrounds[index % len(backgrounds)], generator) for index in range(num_stills)]
    frames = torch.cat(stills).movedim(-1, 1).float() / 127.5 - 1  # (N, 3, 32, 32)
    colors = torch.nn.functional.avg_pool2d(frames, CELLS_PER_LATENT).movedim(1, -1).reshape(-1, 3)
    latents = codec.encode(frames).movedim(1, -1).reshape(len(colors), -1)
    with_bias = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    solution = torch.linalg.lstsq(with_bias, colors).solution  # (17, 3)
    return solution[:-1], solution[-1]
