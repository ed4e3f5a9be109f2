"""Where the weights of both sides come from: the StageBlender, fixed numbers, or a plan; and a record of what was used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from .pair import PairConfig
from .stage_blender import Stage, StageBlender, share_at


class Blend(Protocol):
    """Gives the weights of one model call, in two parts: numbers known before it, and what is made of them within."""

    def scheduled(self, stage: Stage | None, noise_level: Stage | None = None) -> torch.Tensor:
        """Numbers (1 or B, N), on the host, that follow from where in denoising the call is.

        Args:
            stage: position in denoising, 0 (noise) to 1, where it is known; while training one for each sample, (B,).
            noise_level: likewise the factor on the noise (sigma of a flow model), 1 to 0.
        """

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        """Weights (B, G, 2) or broadcastable, identity first. May be compiled.

        Args:
            embedding: time embedding (B, E).
            tokens: streams of (B, T, C) entering block 0.
            scheduled: what the method of this name gave, on the device of both.
        """


def weights_at(blend: Blend, embedding: torch.Tensor, tokens: list[torch.Tensor], stage: Stage | None = None) -> torch.Tensor:
    """Weights (B, G, 2) or broadcastable of a call at a stage; see `Blend`."""
    return blend.weights(embedding, tokens, blend.scheduled(stage).to(embedding.device))


@dataclass(frozen=True)
class FixedBlend:
    """The same two weights at every step and in every block."""

    identity: float
    motion: float

    def scheduled(self, stage: Stage | None, noise_level: Stage | None = None) -> torch.Tensor:
        """-> (1, 2)"""
        return torch.tensor([[self.identity, self.motion]], dtype=torch.float32)

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        """-> (1, 1, 2)"""
        return scheduled[:, None]


@dataclass(frozen=True)
class LearnedBlend:
    """The StageBlender's weights."""

    controller: StageBlender

    def scheduled(self, stage: Stage | None, noise_level: Stage | None = None) -> torch.Tensor:
        """-> (1 or B, 1)"""
        return self.controller.starts_at(stage)[:, None]

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        """-> (B, G, 2)"""
        return self.controller(embedding, tokens, scheduled[:, 0])


@dataclass(frozen=True)
class PartOfBlend:
    """The weights of some of the groups for which a blend gives them: those of one expert."""

    blend: Blend
    first_group: int
    num_groups: int

    def scheduled(self, stage: Stage | None, noise_level: Stage | None = None) -> torch.Tensor:
        """-> (1 or B, N)"""
        return self.blend.scheduled(stage, noise_level)

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        """-> (B, G, 2)"""
        return self.blend.weights(embedding, tokens, scheduled)[:, self.first_group : self.first_group + self.num_groups]


@dataclass(frozen=True)
class SharePlan:
    """The identity's share of the blend, drawn by hand: a curve over denoising plus a curve over depth.

    Each curve holds shares at evenly spaced points, from pure noise to clean and from the first group of blocks to
    the deepest; 0.5 is even. Their distances from 0.5 add up, and the sum is kept between 0 and 1.
    """

    stages: tuple[float, ...] = (0.5,)
    depths: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        for name in ("stages", "depths"):
            shares = getattr(self, name)
            if not shares or not all(0 <= share <= 1 for share in shares):
                raise ValueError(f"{name} must be one or more shares from 0 to 1, given are {shares}.")

    def shares(self, stage: Stage, depths: torch.Tensor) -> torch.Tensor:
        """Identity shares at a stage, or at the stages (B,) of samples, and at depths (G,), all 0 to 1: (1 or B, G)."""
        return (share_at(self.stages, stage)[:, None] + share_at(self.depths, depths) - 0.5).clamp(0, 1)

    def blend(self, config: PairConfig) -> PlannedBlend:
        """The plan at the scale and with the groups of a pair."""
        return PlannedBlend(self, config.scale, config.num_groups)


@dataclass(frozen=True)
class PlannedBlend:
    """Weights from a plan: `scale * share` for the identity and the rest for the motion."""

    plan: SharePlan
    scale: float
    num_groups: int

    def scheduled(self, stage: Stage | None, noise_level: Stage | None = None) -> torch.Tensor:
        """-> (1 or B, G)"""
        depths = torch.arange(self.num_groups) / max(self.num_groups - 1, 1)
        return self.scale * self.plan.shares(0.5 if stage is None else stage, depths)

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        """-> (1 or B, G, 2)"""
        return torch.stack([scheduled, self.scale - scheduled], dim=-1)


MOVEMENT_FIRST = (0.4, 0.4, 0.4, 0.7, 0.7, 0.7)
"""Identity shares over denoising that kept most of two sides trained apart on the tuning pairs of the fusion benchmark: the
path is settled early, in noise, and looks late. Such sides bear no more than this, as they were trained at even weights."""

PLANS: dict[str, SharePlan] = {
    "even": SharePlan(),
    "movement first": SharePlan(stages=MOVEMENT_FIRST),
    "paper trend": SharePlan(stages=(0.35, 0.65), depths=(0.55, 0.55, 0.55, 0.5, 0.4)),
    "identity late": SharePlan(stages=(0.25, 0.75)),
    "identity early": SharePlan(stages=(0.75, 0.25)),
    "motion deep": SharePlan(depths=(0.65, 0.35)),
}
"""Plans by name. 'paper trend' is the one that the paper reports its controller to have learned: the identity's weight
grows as denoising proceeds, the motion's in the deepest blocks."""


@dataclass
class BlendRecord:
    """Weights that were used: a (G, 2) tensor per call of the watched batch row, where they were used, and the stage of each call."""

    row: int = -1
    calls: list[torch.Tensor] = field(default_factory=list)
    stages: list[float | None] = field(default_factory=list)

    def add(self, weights: torch.Tensor, stage: Stage | None = None) -> None:
        """weights: (B, G, 2); stage: of the call, or (B,) of its rows."""
        self.calls.append(weights.detach()[self.row].float().clone())  # not to the host, which would wait for the device
        self.stages.append(float(stage[self.row]) if isinstance(stage, torch.Tensor) else stage)

    def clear(self) -> None:
        """Forgets all calls."""
        self.calls.clear()
        self.stages.clear()

    def positions(self) -> list[float]:
        """Stages of the rows of the table; empty where one is not known."""
        return [] if None in self.stages else sorted(set(self.stages))

    def table(self) -> torch.Tensor:
        """Weights by call: (S, G, 2). Calls at one known stage, as some samplers make them, count as one: their mean."""
        positions, calls = self.positions(), [weights.cpu() for weights in self.calls]
        if not positions:
            return torch.stack(calls)
        by_stage: dict[float, list[torch.Tensor]] = {}
        for stage, weights in zip(self.stages, calls, strict=True):
            by_stage.setdefault(stage, []).append(weights)
        return torch.stack([torch.stack(by_stage[stage]).mean(0) for stage in positions])
