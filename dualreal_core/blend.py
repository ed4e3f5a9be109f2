"""Where the weights of both sides come from: fixed numbers, or the StageBlender; and a record of what was used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from .controller import StageBlender


class Blend(Protocol):
    """Gives the weights of one model call."""

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """embedding: (B, E); tokens: streams of (B, T, C) -> weights (B, G, 2) or broadcastable, identity first."""


@dataclass(frozen=True)
class FixedBlend:
    """The same two weights at every step and in every block."""

    identity: float
    motion: float

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """-> (1, 1, 2)"""
        return torch.tensor([[[self.identity, self.motion]]], dtype=torch.float32, device=embedding.device)


@dataclass(frozen=True)
class LearnedBlend:
    """The StageBlender's weights."""

    controller: StageBlender

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """-> (B, G, 2)"""
        dtype = self.controller.out.weight.dtype  # bases keep their time embedding in another precision than their tokens
        return self.controller(embedding.to(dtype), [stream.to(dtype) for stream in tokens])


@dataclass
class BlendRecord:
    """Weights that were used: a (G, 2) tensor per call of the watched batch row."""

    row: int = -1
    calls: list[torch.Tensor] = field(default_factory=list)

    def add(self, weights: torch.Tensor) -> None:
        """weights: (B, G, 2)"""
        self.calls.append(weights.detach()[self.row].float().cpu())

    def table(self) -> torch.Tensor:
        """(steps, G, 2)"""
        return torch.stack(self.calls)
