"""Means over trials and how sure they are: bootstrap intervals that resample figures, motions and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

NUM_RESAMPLES = 2000
LEVEL = 0.95
Place = tuple[str, str, int]
"""Figure, motion and seed of a result."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` trials and its interval; None where a single one tells nothing of the spread, or none is defined."""

    mean: float | None
    low: float | None
    high: float | None
    count: int


NOTHING = Estimate(None, None, None, 0)
"""Of no trial."""


def estimate(values: Mapping[Place, float | None], seed: int = 0) -> Estimate:
    """Mean of the defined values, with a 95 % interval of percentiles.

    Figures, motions and seeds are drawn with replacement, independently of each other (the bootstrap for crossed factors of
    Owen, 2007): the interval speaks of other figures, motions and, where there are several, seeds too. A seed is drawn for all
    trials at once, as those of one figure share its photos, and those of one motion its clips.
    """
    defined = {place: value for place, value in values.items() if value is not None}
    if not defined:
        return NOTHING
    mean = fmean(defined.values())
    if len(defined) == 1:
        return Estimate(mean, None, None, 1)
    identities, motions, seeds = (sorted({place[part] for place in defined}) for part in range(3))
    grid = np.full((len(identities), len(motions), len(seeds)), np.nan)
    for (identity, motion, number), value in defined.items():
        grid[identities.index(identity), motions.index(motion), seeds.index(number)] = value
    drawn = np.random.default_rng(seed)
    at_identity = drawn.integers(len(identities), size=(NUM_RESAMPLES, len(identities), 1, 1))
    at_motion = drawn.integers(len(motions), size=(NUM_RESAMPLES, 1, len(motions), 1))
    at_seed = drawn.integers(len(seeds), size=(NUM_RESAMPLES, 1, 1, len(seeds)))
    resampled = grid[at_identity, at_motion, at_seed].reshape(NUM_RESAMPLES, -1)  # NaN where a trial is missing
    means = np.nanmean(resampled[~np.isnan(resampled).all(1)], axis=1)
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(mean, float(low), float(high), len(defined))


def prediction(values: Mapping[Place, float | None], num_seeds: int) -> Estimate:
    """Where the mean of another run lies, in 95 % of such runs: the same figures and motions, `num_seeds` seeds that are new.

    Student's t on the means of the seeds here, as both these and the other run's are a sample (prediction interval). Only figures
    with motions that are defined with every seed count. Without limits where there are not two seeds.
    """
    defined = {place: value for place, value in values.items() if value is not None}
    seeds = {place[2] for place in defined}
    subjects = {place[:2] for place in defined if all((*place[:2], one) in defined for one in seeds)}
    if not subjects:
        return NOTHING
    means = [fmean(defined[(*subject, one)] for subject in subjects) for one in sorted(seeds)]
    mean, count = fmean(means), len(subjects) * len(seeds)
    if len(means) < 2:
        return Estimate(mean, None, None, count)
    half = _t_quantile(len(means) - 1) * stdev(means) * math.sqrt(1 / len(means) + 1 / num_seeds)
    return Estimate(mean, mean - half, mean + half, count)


def _t_quantile(freedom: int) -> float:
    """What Student's t of so many degrees of freedom stays below in absolute value, at `LEVEL`.

    At t = sqrt(freedom) tan(a) its density over the angle a is cos(a) ** (freedom - 1), summed here over slices of a right angle.
    """
    edges = np.linspace(0, math.pi / 2, 100_001)
    below = np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1))
    return math.sqrt(freedom) * math.tan(np.interp(LEVEL, below / below[-1], edges[1:]))
