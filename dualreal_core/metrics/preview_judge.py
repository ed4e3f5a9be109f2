"""Judges previews of blends against those of either side alone: how much of the movement and of the looks each one keeps.

From latents, without a model: movement by the track of what stands out, looks by how its channels vary together, which does not
ask where it is. Both suppose a still camera and a subject that stands out; embeddings of frames may judge the looks instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch.nn import functional

LEAST_MOVEMENT = 0.02
"""Of the shorter side: where the reference lies nearer to the motion's track than this, the motion shows in no track."""
LEAST_LOOKS = 0.02
"""Difference of cosines: where the looks of both sides differ by less, nothing tells how much of one is kept."""


@dataclass(frozen=True)
class Scores:
    """What a blend keeps of both sides: 1 as the side alone does, 0 as without it; None where previews cannot tell."""

    movement: float | None
    looks: float | None

    def clipped(self) -> list[float]:
        """Those that previews can tell, each from 0 to 1: more than the side alone is no merit."""
        return [min(max(value, 0.0), 1.0) for value in (self.movement, self.looks) if value is not None]


RULES: dict[str, Callable[[list[float]], float]] = {"mean": fmean, "smaller": min}
"""How the two scores of a blend, each from 0 to 1, count as one."""
RULE = "mean"


def judge(
    candidates: Mapping[str, torch.Tensor], identity_only: torch.Tensor, motion_only: torch.Tensor, base: torch.Tensor | None = None,
    embeddings: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Scores]:  # fmt: skip
    """Scores of each candidate.

    All are previews of the same prompts from the same noise: latents (C, F, h, w) of one video, or (V, C, F, h, w) of several.

    Args:
        candidates: by name.
        identity_only, motion_only: with one side alone.
        base: with neither: what 0 stands for. Without it, a score is 0 where it is as with the other side alone.
        embeddings: (N, D) of frames in order, by which looks are judged instead: of each candidate by its name, and of the references by
            'identity_only', 'motion_only' and, where there is one, 'base'.

    Raises:
        ValueError: previews of different shapes.
    """
    shapes = {tuple(one.shape) for one in (*candidates.values(), identity_only, motion_only, *([] if base is None else [base]))}
    if len(shapes) > 1 or len(next(iter(shapes))) not in (4, 5):
        raise ValueError(f"Previews have the shapes {sorted(shapes)}; all must be (C, F, h, w), or all (V, C, F, h, w).")
    movement = _movement(candidates, motion_only, identity_only if base is None else base)
    nothing, num_videos = ("motion_only" if base is None else "base"), 1 if identity_only.ndim == 4 else len(identity_only)
    if embeddings is None:
        shown = {**candidates, "identity_only": identity_only, nothing: motion_only if base is None else base}
        features = {name: appearance(latents) for name, latents in shown.items()}
    else:
        features, num_videos = {name: functional.normalize(one.float(), dim=-1) for name, one in embeddings.items()}, 1
    parts = features["identity_only"].tensor_split(num_videos if num_videos > 1 else 2)  # one video's halves stand for two videos
    looks = _looks({name: features[name] for name in candidates}, features[nothing], [part for part in parts if len(part)])
    return {name: Scores(movement[name], looks[name]) for name in candidates}


def best_of(scores: Mapping[str, Scores], rule: str = RULE) -> str | None:
    """The name of the candidate that keeps most of both by one of `RULES`, the first of equals; None where nothing can be told."""
    totals = {name: RULES[rule](one.clipped()) for name, one in scores.items() if one.clipped()}
    return max(totals, key=totals.__getitem__, default=None)


def foreground(latents: torch.Tensor) -> torch.Tensor:
    """What differs from a frame's median, channel by channel: latents (..., C, F, h, w) -> the same, float32."""
    latents = latents.detach().float().cpu().nan_to_num()
    return latents - latents.flatten(-2).median(-1).values[..., None, None]


def energy_track(latents: torch.Tensor) -> torch.Tensor:
    """The centre of the foreground's energy about its mean place: (..., C, F, h, w) -> (..., F, 2) as (x, y), in shorter sides."""
    energy = foreground(latents).square().sum(-4)  # (..., F, h, w)
    height, width = energy.shape[-2:]
    total = energy.sum((-2, -1)).clamp(min=1e-12)
    across, down = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    centers = torch.stack([(energy.sum(-2) * across).sum(-1), (energy.sum(-1) * down).sum(-1)], dim=-1) / total[..., None]
    return (centers - centers.mean(-2, keepdim=True)) / min(height, width)


def appearance(latents: torch.Tensor) -> torch.Tensor:
    """The root of the foreground's covariance between channels, of each frame: ([V,] C, F, h, w) -> (V F, C C) unit vectors."""
    values = _several(foreground(latents), 4).transpose(1, 2).flatten(0, 1).flatten(2)  # (V F, C, h w)
    variances, axes = torch.linalg.eigh(values @ values.transpose(1, 2) / values.shape[-1])
    root = axes @ torch.diag_embed(variances.clamp(min=0).sqrt()) @ axes.transpose(1, 2)
    return functional.normalize(root.flatten(1), dim=-1)


def _movement(candidates: Mapping[str, torch.Tensor], motion_only: torch.Tensor, reference: torch.Tensor) -> dict[str, float | None]:
    own = _several(energy_track(motion_only), 2)  # (V, F, 2)
    wanted = own.mean(0)

    def distance(track: torch.Tensor) -> float:
        return fmean((_several(track, 2) - wanted).square().sum(-1).mean(-1).sqrt().tolist())

    whole, nothing = distance(own), distance(energy_track(reference))
    if own.shape[-2] < 2 or nothing - whole < LEAST_MOVEMENT:
        return dict.fromkeys(candidates)
    return {name: (nothing - distance(energy_track(latents))) / (nothing - whole) for name, latents in candidates.items()}


def _looks(candidates: Mapping[str, torch.Tensor], nothing: torch.Tensor, identity: list[torch.Tensor]) -> dict[str, float | None]:
    """Unit vectors (N, D) of frames; identity: those of each of its videos, whose likeness to the others is the most that can be."""
    bank, whole = torch.cat(identity), 1.0
    if len(identity) > 1:
        whole = fmean(_likeness(one, torch.cat([other for other in identity if other is not one])) for one in identity)
    least = _likeness(nothing, bank)
    if whole - least < LEAST_LOOKS:
        return dict.fromkeys(candidates)
    return {name: (_likeness(one, bank) - least) / (whole - least) for name, one in candidates.items()}


def _likeness(one: torch.Tensor, bank: torch.Tensor) -> float:
    """Mean over (N, D) of the best cosine with the bank's (M, D)."""
    return float((one @ bank.T).amax(1).mean())


def _several(tensor: torch.Tensor, num_dims: int) -> torch.Tensor:
    """With a first axis for videos, of which there is one where it is missing."""
    return tensor if tensor.ndim > num_dims else tensor[None]
