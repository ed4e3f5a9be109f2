"""Exact scores of the toy world: how much of a known sprite, and of a known path, is in a clip. No model involved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch.nn import functional

from .figures import FIGURES, SPRITE_CELLS, Figure
from .paths import MOTIONS, canonical_path
from .world import Look, all_looks

STILL_RADIUS = 5.0
"""Cells. A path shorter than this (standing still) is judged against this radius."""
SPRITE_THRESHOLD = 0.25
"""A cell belongs to the sprite where a channel differs from the background by more than this, of a range of 2."""
MIN_SPRITE_CELLS = 12
"""A frame with fewer sprite cells shows nothing that could move."""


@dataclass(frozen=True)
class IdentityScore:
    """Cosine (0..1) of the best window with a sprite: mean over the frames, each frame, and the next best sprite's."""

    mean: float
    frames: list[float]
    best: int
    margin: float


@dataclass(frozen=True)
class MotionScore:
    """1 for the canonical path at any scale in 0.8..1.2, 0 for no likeness; the best of all motions and the margin."""

    score: float
    best: str
    margin: float


class SpriteBank(NamedTuple):
    """Every named sprite, its name or phrase, and its template."""

    sprites: list[Look | Figure]
    names: list[str]
    templates: tuple[torch.Tensor, torch.Tensor]


@cache
def sprite_bank() -> SpriteBank:
    """Drawn once: that takes longer than scoring a video."""
    return SpriteBank(named_sprites(), [*(look.phrase for look in all_looks()), *FIGURES], templates(named_sprites()))


def named_sprites() -> list[Look | Figure]:
    """Every look and every named figure; figures last, in the order of `FIGURES`."""
    return [*all_looks(), *FIGURES.values()]


def templates(sprites: list[Look | Figure]) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours (K, 3, 12, 12) in [-1, 1] and coverage (K, 1, 12, 12) of the sprites that clips are compared with."""
    drawn = [sprite.sprite() for sprite in sprites]
    color = torch.stack([color for color, _ in drawn]).permute(0, 3, 1, 2).float() / 127.5 - 1
    return color, torch.stack([covered for _, covered in drawn])[:, None].float()


def score_identity(frames: torch.Tensor, bank: tuple[torch.Tensor, torch.Tensor], target: int) -> IdentityScore:
    """Score of sprite `target` of `bank` in a clip.

    Window and sprite are compared after subtracting the background (the frame's median colour), by cosine, at the
    best place of each frame.

    Args:
        frames: (F, 3, 32, 32) in [-1, 1].
        bank: what `templates` returns; `best` and `margin` are taken over all of it.
    """
    per_frame = sprite_likeness(frames, bank)
    means = per_frame.mean(0)
    ranked = means.argsort(descending=True)
    rival = next(int(index) for index in ranked if int(index) != target) if len(means) > 1 else target
    return IdentityScore(
        mean=float(means[target]),
        frames=per_frame[:, target].tolist(),
        best=int(ranked[0]),
        margin=float(means[target] - means[rival]) if len(means) > 1 else float(means[target]),
    )


def sprite_likeness(frames: torch.Tensor, bank: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cosine (0..1) of each sprite of `bank` at its best place in each frame: frames (F, 3, 32, 32) -> (F, K)."""
    color, covered = bank
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


def score_motion(frames: torch.Tensor, target: str) -> MotionScore:
    """Score of motion `target` in a clip: 1 - rms distance between centred track and centred path, over the path's radius.

    Args:
        frames: (F, 3, 32, 32) in [-1, 1].
    """
    centers = track(frames)
    if centers is None:
        return MotionScore(0.0, "none", 0.0)
    centers = centers - centers.mean(0)
    scores = {name: _likeness(centers, canonical_path(name, len(centers))) for name in MOTIONS}
    best = max(scores, key=scores.__getitem__)
    rival = max(score for name, score in scores.items() if name != target)
    return MotionScore(max(scores[target], 0.0), best, scores[target] - rival)


def _likeness(centers: torch.Tensor, path: torch.Tensor) -> float:
    path = path - path.mean(0)
    energy = path.square().sum()
    scale = float((centers * path).sum() / energy) if energy > 0 else 1.0
    distance = (centers - min(max(scale, 0.8), 1.2) * path).square().sum(1).mean().sqrt()
    radius = max(float(path.square().sum(1).mean().sqrt()), STILL_RADIUS)
    return 1 - float(distance) / radius
