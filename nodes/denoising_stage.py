"""Where in denoising a call of the model lies, by the sigmas that ComfyUI gives along."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

WHOLE = (5, 95)
"""Sampled sigmas that reach from before the first to behind the second hundredth of denoising are all of it."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The sigmas of a MODEL that a pair goes by.

    Attributes:
        start, end: sigmas between which the pair acts, the first one the larger.
        sigma_table: sigmas at every hundredth of denoising.
    """

    start: float
    end: float
    sigma_table: tuple[float, ...]

    @classmethod
    def of(cls, percent_to_sigma: Callable[[float], float], start_percent: float, end_percent: float) -> NoiseSchedule:
        """By the MODEL's own function; percents are shares of denoising from 0 to 1."""
        start = float(percent_to_sigma(start_percent)) if start_percent > 0 else math.inf  # samplers may add noise to the first
        return cls(start, float(percent_to_sigma(end_percent)), tuple(float(percent_to_sigma(index / 100)) for index in range(101)))

    def covers(self, sigma: float | None) -> bool:
        """Whether the pair acts at a sigma; yes where none is known."""
        return sigma is None or self.end <= sigma <= self.start

    def stage(self, sigma: float | None, sampled: Sequence[float]) -> float | None:
        """Position of a sigma among the S + 1 sampled ones, the last of them the end: 0 at the first step, 1 at step S - 1.

        Where a sampler does only a part of denoising (several in a row, or `denoise` below 1), its sigmas do not tell, and
        training has none; the position is then the one that training gives such a sigma.
        """
        if sigma is None:
            return None
        table = self.sigma_table
        is_whole = len(sampled) > 1 and sampled[0] >= table[WHOLE[0]] and sampled[-1] <= table[WHOLE[1]]
        position = _place(sigma, sampled) / max(len(sampled) - 2, 1) if is_whole else _place(sigma, table) / (len(table) - 1)
        return min(1.0, max(0.0, position))


def sigmas_of_rows(sigmas: torch.Tensor | None, num_rows: int) -> list[float | None]:
    """A sigma for each row of a call; ComfyUI gives one for all (1,), or those of one prompt's rows (B / n,)."""
    listed = [] if sigmas is None else sigmas.flatten().cpu().tolist()
    return [listed[row % len(listed)] for row in range(num_rows)] if listed else [None] * num_rows


def _place(sigma: float, listed: Sequence[float]) -> float:
    """Index of a sigma in a falling list; in between, as samplers also call between listed sigmas, interpolated."""
    place = next((index for index, value in enumerate(listed) if value <= sigma), len(listed) - 1)
    if place == 0 or listed[place] == sigma:
        return float(place)
    return place - (sigma - listed[place]) / max(listed[place - 1] - listed[place], 1e-12)
