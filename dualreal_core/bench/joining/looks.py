"""Looks of previews by windows: how like the subject of one side's own previews the best place of each frame is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from torch.nn import functional

from ...toyworld.figures import SPRITE_CELLS
from ...toyworld.scores import background_colors

NUM_LIKEST = 5
"""Windows of the bank that a frame is held against: one of a lucky place says little."""


def looks_kept(
    candidates: Mapping[str, Sequence[torch.Tensor]], identity_only: Sequence[torch.Tensor], base: Sequence[torch.Tensor]
) -> dict[str, float]:
    """0 as the base, 1 as the identity side alone; videos (F, 3, H, W) in [-1, 1] of the same prompts and noise."""
    bank = subject_windows(identity_only)
    nothing, whole = likeness(base, bank), likeness(identity_only, bank)
    return {name: (likeness(videos, bank) - nothing) / max(whole - nothing, 1e-6) for name, videos in candidates.items()}


def subject_windows(videos: Sequence[torch.Tensor]) -> torch.Tensor:
    """The window of each frame that holds most of what differs from the background, as unit vectors: (N, 3, 12, 12)."""
    windows = []
    for video in videos:
        foreground = video - background_colors(video)[:, :, None, None]
        energy = functional.avg_pool2d(foreground.square().sum(1, keepdim=True), SPRITE_CELLS, 1)[:, 0]
        for frame, place in zip(foreground, energy.flatten(1).argmax(1).tolist(), strict=True):
            y, x = divmod(place, energy.shape[-1])
            windows.append(frame[:, y : y + SPRITE_CELLS, x : x + SPRITE_CELLS])
    flat = torch.stack(windows).flatten(1)
    return functional.normalize(flat, dim=1).unflatten(1, (3, SPRITE_CELLS, SPRITE_CELLS))


def likeness(videos: Sequence[torch.Tensor], bank: torch.Tensor) -> float:
    """Mean over frames of the cosine with the likest windows, each at its best place in the frame."""
    values = []
    for video in videos:
        foreground = video - background_colors(video)[:, :, None, None]
        size = functional.conv2d(foreground.square().sum(1, keepdim=True), torch.ones(1, 1, SPRITE_CELLS, SPRITE_CELLS)).sqrt()
        cosine = functional.conv2d(foreground, bank) / size.clamp(min=1e-3)
        best = cosine.flatten(2).amax(2)  # (F, N)
        values.append(float(best.topk(min(NUM_LIKEST, best.shape[1]), dim=1).values.mean()))
    return fmean(values)
