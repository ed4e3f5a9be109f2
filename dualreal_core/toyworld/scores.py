"""Exact scores of the toy world: how much of a known sprite, and of a known path, is in a clip. No model involved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch.nn import functional

from .figures import FIGURES, FRESH_FIGURES, SPRITE_CELLS, Figure
from .paths import MOTIONS, Motion, canonical_path
from .world import Look, all_looks

STILL_RADIUS = 5.0
"""Cells. A path shorter than this (standing still) is judged against this radius."""
SPRITE_THRESHOLD = 0.25
"""A cell belongs to the sprite where a channel differs from the background by more than this, of a range of 2."""
MIN_SPRITE_CELLS = 12
"""A frame with fewer sprite cells shows nothing that could move."""


class IdentityScore(NamedTuple):
    """Likeness (0..1) to the sprite that is meant, and which of the bank a clip resembles most."""

    score: float
    best: int


class MotionScore(NamedTuple):
    """1 for the canonical path at any scale in 0.8..1.2, 0 for no likeness; and which motion a clip resembles most."""

    score: float
    best: str


class SpriteBank(NamedTuple):
    """Every look, then every named figure in the order of `FIGURES`.

    names: phrases of looks, names of figures. color: (K, 3, 12, 12) in [-1, 1]; covered: (K, 1, 12, 12), 0 or 1.
    """

    sprites: list[Look | Figure]
    names: list[str]
    color: torch.Tensor
    covered: torch.Tensor


@cache
def sprite_bank(has_fresh: bool = False) -> SpriteBank:
    """Drawn once: that takes longer than scoring a video. Where it `has_fresh` ones, these come last."""
    figures = {**FIGURES, **(FRESH_FIGURES if has_fresh else {})}
    sprites = [*all_looks(), *figures.values()]
    drawn = [sprite.sprite() for sprite in sprites]
    color = torch.stack([color for color, _ in drawn]).permute(0, 3, 1, 2).float() / 127.5 - 1
    covered = torch.stack([covered for _, covered in drawn])[:, None].float()
    return SpriteBank(sprites, [*(look.phrase for look in all_looks()), *figures], color, covered)


def score_identity(frames: torch.Tensor, target: int, bank: SpriteBank | None = None) -> IdentityScore:
    """Mean likeness of sprite `target` of the bank (default: without fresh ones) over a clip's frames (F, 3, 32, 32) in [-1, 1]."""
    means = sprite_likeness(frames, bank).mean(0)
    return IdentityScore(float(means[target]), int(means.argsort(descending=True)[0]))


def sprite_likeness(frames: torch.Tensor, bank: SpriteBank | None = None) -> torch.Tensor:
    """Cosine (0..1) of each sprite of the bank at its best place in each frame: frames (F, 3, 32, 32) -> (F, K).

    The background, the frame's median colour, is subtracted from both.
    """
    _, _, color, covered = sprite_bank() if bank is None else bank
    background = background_colors(frames)[:, :, None, None]  # (F, 3, 1, 1)
    foreground = frames - background
    energy = functional.conv2d(foreground.square().sum(1, keepdim=True), torch.ones(1, 1, SPRITE_CELLS, SPRITE_CELLS))
    # <frame, (color - background) * covered> and |(color - background) * covered| without a template per frame
    product = functional.conv2d(foreground, color * covered)  # (F, K, 21, 21)
    product -= functional.conv2d((foreground * background).sum(1, keepdim=True), covered)
    size = ((color[None] - background[:, None]) * covered[None]).square().sum((2, 3, 4)).sqrt()  # (F, K)
    cosine = product / (energy.sqrt() * size[:, :, None, None]).clamp(min=1e-3)
    return cosine.flatten(2).max(dim=2).values.clamp(min=0)


def background_colors(frames: torch.Tensor) -> torch.Tensor:
    """Median colour of each frame, which is its background's: frames (F, 3, 32, 32) -> (F, 3)."""
    return frames.flatten(2).median(dim=2).values


def track(frames: torch.Tensor) -> torch.Tensor | None:
    """Centre of the sprite in each frame, in cells: (F, 2) as (x, y); None where a frame shows no sprite."""
    background = background_colors(frames)[:, :, None, None]
    weight = ((frames - background).abs().amax(1) > SPRITE_THRESHOLD).float()  # (F, 32, 32)
    count = weight.sum((1, 2))
    if count.min() < MIN_SPRITE_CELLS:
        return None
    cells = torch.arange(weight.shape[-1], dtype=torch.float32)
    return torch.stack([(weight * cells).sum((1, 2)), (weight * cells[:, None]).sum((1, 2))], dim=1) / count[:, None]


def score_motion(frames: torch.Tensor, target: str, among: Mapping[str, Motion] = MOTIONS) -> MotionScore:
    """Score of motion `target` in a clip: 1 - rms distance between centred track and centred path, over the path's radius.

    Args:
        frames: (F, 3, 32, 32) in [-1, 1].
        among: which the best one is of; `target` is one of them.
    """
    centers = track(frames)
    if centers is None:
        return MotionScore(0.0, "none")
    centers = centers - centers.mean(0)
    scores = {name: _likeness(centers, canonical_path(name, len(centers))) for name in among}
    best = max(scores, key=scores.__getitem__)
    return MotionScore(max(scores[target], 0.0), best)


def _likeness(centers: torch.Tensor, path: torch.Tensor) -> float:
    path = path - path.mean(0)
    energy = path.square().sum()
    scale = float((centers * path).sum() / energy) if energy > 0 else 1.0
    distance = (centers - min(max(scale, 0.8), 1.2) * path).square().sum(1).mean().sqrt()
    radius = max(float(path.square().sum(1).mean().sqrt()), STILL_RADIUS)
    return 1 - float(distance) / radius
