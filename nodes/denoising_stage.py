"""Where in denoising a call of the model lies, by the sigmas that ComfyUI gives along."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from operator import neg

import torch

NUM_INTERVALS = 999
"""Of the table: the thousand timesteps of a discrete model lie on it, and between them a flow's sigmas are close to linear."""
BARELY = 1e-6
"""Instead of 0 and 1, at which discrete models give sigmas that no sampler and no training step has."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The sigmas of a MODEL that a pair goes by.

    Attributes:
        start, end: sigmas between which the pair acts, the first one the larger.
        sigma_table: sigmas at evenly spaced positions in denoising, falling.
        is_flow: whether sigma is the factor on the noise, and 1 - sigma that on the latents; else these have the factor 1.
    """

    start: float
    end: float
    sigma_table: tuple[float, ...]
    is_flow: bool = True

    @classmethod
    def of(
        cls, percent_to_sigma: Callable[[float], float], start_percent: float, end_percent: float, is_flow: bool = True
    ) -> NoiseSchedule:
        """By the MODEL's own function; percents are shares of denoising from 0 to 1."""
        start = float(percent_to_sigma(start_percent)) if start_percent > 0 else math.inf  # samplers may add noise to the first
        places = [min(max(index / NUM_INTERVALS, BARELY), 1 - BARELY) for index in range(NUM_INTERVALS + 1)]
        return cls(start, float(percent_to_sigma(end_percent)), tuple(float(percent_to_sigma(place)) for place in places), is_flow)

    def covers(self, sigma: float | None) -> bool:
        """Whether the pair acts at a sigma; yes where none is known."""
        return sigma is None or self.end <= sigma <= self.start

    def noise_level(self, sigma: float | None) -> float | None:
        """The factor on the noise where noise and latents are scaled to keep their size, 1 (noise) to 0; None where no sigma is known."""
        if sigma is None:
            return None
        return min(max(sigma, 0.0), 1.0) if self.is_flow else sigma / math.hypot(1.0, sigma)

    def stage(self, sigma: float | None) -> float | None:
        """Position of a sigma in denoising, 0 (noise) to 1, as training places it; None where no sigma is known.

        It is a function of the sigma and the MODEL alone: so steps, schedulers, parts of a run and the experts that share it all agree.
        """
        if sigma is None:
            return None
        table = self.sigma_table
        place = bisect_left(table, -sigma, key=neg)
        if place in (0, len(table)):
            return float(place > 0)
        above, below = table[place - 1], table[place]
        return (place - (sigma - below) / (above - below)) / (len(table) - 1)

    def sigma(self, stage: float) -> float:
        """The sigma at a position in denoising, 0 (noise) to 1: the way back from `stage`."""
        place = stage * (len(self.sigma_table) - 1)
        index = min(int(place), len(self.sigma_table) - 2)
        above, below = self.sigma_table[index : index + 2]
        return above + (place - index) * (below - above)


def sigmas_of_rows(sigmas: torch.Tensor | None, num_rows: int) -> list[float | None]:
    """A sigma for each row of a call; ComfyUI gives one for all (1,), or those of one prompt's rows (B / n,)."""
    listed = [] if sigmas is None else sigmas.flatten().cpu().tolist()
    return [listed[row % len(listed)] for row in range(num_rows)] if listed else [None] * num_rows
