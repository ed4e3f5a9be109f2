"""The steps of a sampling as each family counts noise: flow models by a shift, CogVideoX by a table of betas."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache

import torch

from .blend_weights import Denoising

PRESERVING = {"cogvideox"}
"""Families whose sigma is noise over signal, without an upper end; its noise level is sigma / sqrt(1 + sigma^2)."""
NUM_TIMESTEPS = 1000
BETAS = (0.00085, 0.012)
"""First and last, evenly spaced by their roots; the last timestep is then made pure noise."""


def even_steps(family: str, num_steps: int, shift: float) -> Denoising:
    """Steps evenly spaced in denoising; the shift is a flow model's.

    Raises:
        InputError: see `Denoising.of_steps`.
    """
    plain = Denoising.of_steps(num_steps, shift)
    if family not in PRESERVING:
        return plain
    levels = noise_levels()
    places = [(1 - stage) * (len(levels) - 1) for stage in plain.stages]
    return Denoising(tuple(_between(levels, place) for place in places), plain.stages)


def listed_steps(family: str, sigmas: Sequence[float], shift: float) -> Denoising:
    """Steps at sigmas as a scheduler lists them.

    Raises:
        InputError: see `Denoising.of_sigmas`.
    """
    if family not in PRESERVING:
        return Denoising.of_sigmas(sigmas, shift)
    plain = Denoising.of_sigmas([sigma / math.hypot(1.0, sigma) for sigma in sigmas])
    return Denoising(plain.sigmas, tuple(1 - _place(noise_levels(), level) / (NUM_TIMESTEPS - 1) for level in plain.sigmas))


@cache
def noise_levels() -> tuple[float, ...]:
    """By timestep, rising to 1."""
    first, last = (beta**0.5 for beta in BETAS)
    betas = torch.linspace(first, last, NUM_TIMESTEPS, dtype=torch.float64).square()
    signal = (1 - betas).cumprod(0).sqrt()
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return tuple((1 - signal.square()).sqrt().tolist())


def _between(values: Sequence[float], place: float) -> float:
    index = min(int(place), len(values) - 2)
    return values[index] + (place - index) * (values[index + 1] - values[index])


def _place(values: Sequence[float], value: float) -> float:
    """Where in rising values one lies."""
    after = bisect_left(values, value)
    if after in (0, len(values)):
        return float(min(after, len(values) - 1))
    return after - (values[after] - value) / (values[after] - values[after - 1])
