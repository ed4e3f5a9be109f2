"""Means over cells and how sure they are: bootstrap intervals that resample figures, motions and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

NUM_RESAMPLES = 2000
LEVEL = 0.95
Place = tuple[str, str, int]
"""Figure, motion and seed of a cell."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` cells and its interval; None where a single cell tells nothing of the spread, or none is defined."""

    mean: float | None
    low: float | None
    high: float | None
    count: int


def estimate(values: Mapping[Place, float | None], seed: int = 0) -> Estimate:
    """Mean of the defined values, with a 95 % interval of percentiles.

    Figures, motions and seeds are drawn with replacement, independently of each other (the bootstrap for crossed factors of
    Owen, 2007): the interval speaks of other figures, motions and, where there are several, seeds too. A seed is drawn for all
    cells at once, as those of one figure share its photos, and those of one motion its clips.
    """
    defined = {place: value for place, value in values.items() if value is not None}
    if not defined:
        return Estimate(None, None, None, 0)
    mean = fmean(defined.values())
    if len(defined) == 1:
        return Estimate(mean, None, None, 1)
    identities, motions, seeds = (sorted({place[part] for place in defined}) for part in range(3))
    grid = np.full((len(identities), len(motions), len(seeds)), np.nan)
    for (identity, motion, number), value in defined.items():
        grid[identities.index(identity), motions.index(motion), seeds.index(number)] = value
    drawn = np.random.default_rng(seed)
    rows = drawn.integers(len(identities), size=(NUM_RESAMPLES, len(identities), 1, 1))
    columns = drawn.integers(len(motions), size=(NUM_RESAMPLES, 1, len(motions), 1))
    layers = drawn.integers(len(seeds), size=(NUM_RESAMPLES, 1, 1, len(seeds)))
    resampled = grid[rows, columns, layers].reshape(NUM_RESAMPLES, -1)  # NaN where a cell is missing
    means = np.nanmean(resampled[~np.isnan(resampled).all(1)], axis=1)
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(mean, float(low), float(high), len(defined))
