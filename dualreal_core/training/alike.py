"""Which photos or clips look almost like another one, told from short sketches of their latents.

A sketch adds up coordinates at random places and with random signs (count sketch, Charikar et al., 2002), so distances of sketches
are those of the latents on average, whatever these show. What they leave in doubt is compared in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..dataset import PreparedItem
from .validation import files_of

ALIKE = 0.2
"""Photos or clips whose latents differ by less than this share of their size look the same."""
SKETCH_DIM = 4096
"""At this a squared distance of sketches has a standard deviation of 2 % of the true one."""
DOUBT = 5 * math.sqrt(2 / SKETCH_DIM)
"""Five of them: only distances of 0.19 to 0.21 are in doubt."""
BLOCK = 256
"""Files that are compared with all others at a time."""


def share_alike(items: Sequence[PreparedItem]) -> float:
    """Share of files whose first sample differs from that of another by less than `ALIKE` of their root mean square."""
    files = files_of(items)
    by_shape: dict[torch.Size, list[torch.Tensor]] = {}
    for samples in files.values():
        by_shape.setdefault(samples[0].latents.shape, []).append(samples[0].latents.flatten())
    return sum(_num_alike(latents) for latents in by_shape.values()) / len(files)


def _num_alike(latents: Sequence[torch.Tensor]) -> int:
    """Of latents (D,), those that are almost like another."""
    sizes = torch.stack([one.float().dot(one.float()) for one in latents])
    sketches = _sketches(latents)
    lengths, everyone = sketches.square().sum(1), torch.arange(len(latents))
    is_alike, is_doubtful = torch.zeros(2, len(latents), dtype=torch.bool)
    for rows in everyone.split(BLOCK):
        distances = lengths[rows, None] + lengths - 2 * sketches[rows] @ sketches.T  # (rows, N), squared
        distances[range(len(rows)), rows] = math.inf
        limits = ALIKE**2 * (sizes[rows, None] + sizes) / 2
        is_alike[rows] = (distances < (1 - DOUBT) * limits).any(1)
        is_doubtful[rows] = ((distances - limits).abs() <= DOUBT * limits).any(1)
    others, undecided = everyone[is_doubtful], everyone[is_doubtful & ~is_alike]
    for rows in undecided.split(BLOCK) if len(undecided) else ():
        products = torch.zeros(len(rows), len(others))
        for first in range(0, len(latents[0]), SKETCH_DIM):
            parts = [torch.stack([latents[place][first : first + SKETCH_DIM].float() for place in part]) for part in (rows, others)]
            products += parts[0] @ parts[1].T
        distances = sizes[rows, None] + sizes[others] - 2 * products
        distances[rows[:, None] == others] = math.inf
        is_near = distances < ALIKE**2 * (sizes[rows, None] + sizes[others]) / 2
        is_alike[rows[is_near.any(1)]] = True
        is_alike[others[is_near.any(0)]] = True
    return int(is_alike.sum())


def _sketches(latents: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, S): the latents themselves where they are no longer than a sketch."""
    num_values, generator = len(latents[0]), torch.Generator().manual_seed(0)
    if num_values <= SKETCH_DIM:
        return torch.stack([one.float() for one in latents])
    places = torch.randint(SKETCH_DIM, (num_values,), generator=generator)
    signs = torch.randint(2, (num_values,), generator=generator).float() * 2 - 1
    return torch.stack([torch.zeros(SKETCH_DIM).scatter_add_(0, places, one.float() * signs) for one in latents])
