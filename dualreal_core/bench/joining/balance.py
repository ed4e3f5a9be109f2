"""Equal norms: in each layer, both sides are scaled to the geometric mean of the sizes of their updates."""

from __future__ import annotations

from ...method.combine import combine
from ...method.pair import AdapterPair
from .deltas import delta_of


def balanced(identity: AdapterPair, motion: AdapterPair) -> AdapterPair:
    """Both sides in one pair, of equal Frobenius norm in each layer that both change."""
    pair = combine(identity, motion)
    sides = pair.sides["identity"], pair.sides["motion"]
    for key in set(sides[0]) & set(sides[1]):
        sizes = [float(delta_of(side[key]).norm()) for side in sides]
        if min(sizes) <= 0:
            continue
        common = (sizes[0] * sizes[1]) ** 0.5
        for side, size in zip(sides, sizes, strict=True):
            side[key].up.weight.data.mul_(common / size)
    return pair
