"""Blend curves by name, for two sides that were trained apart."""

from __future__ import annotations

from .curves import LEVEL, BlendCurves, SideCurves

MOVEMENT_FIRST = "movement first"
EVEN = "even"
IDENTITY_EARLY = 0.4
"""Weight of the identity in noise, where the path is settled: what the preset 'movement first' begins with."""
IDENTITY_EARLY_RANGE = (0.0, 0.8)
"""In which that weight is worth turning."""
SWITCH = (0.818, 0.667)
"""Noise levels between which 'movement first' hands over: from stage .4 to .6 of a schedule of shift 3, on which it was chosen."""
ALONE = 0.4
"""Noise level below which the motion has nothing left to add, and the identity is back at the weight that it was trained at."""


def movement_first(identity_early: float = IDENTITY_EARLY) -> BlendCurves:
    """The motion leads in noise, then the identity, which is alone where details are drawn; chosen on the benchmark's tuning pairs.

    Args:
        identity_early: weight of the identity in noise. Movement gains by less, a figure of unusual shape by more, up to .8.
    """
    late, early = sorted(SWITCH)
    identity = ((0.0, 1.0), (ALONE, 1.0), (late, 1.2), (early, identity_early), (1.0, identity_early))
    motion = ((0.0, 0.0), (ALONE, 0.0), (late, 0.4), (early, 1.2), (1.0, 1.2))
    return BlendCurves(SideCurves(identity), SideCurves(motion))


PRESETS: dict[str, BlendCurves] = {
    MOVEMENT_FIRST: movement_first(),
    EVEN: BlendCurves(),
    "identity late": BlendCurves(SideCurves(((0.0, 1.5), (1.0, 0.5))), SideCurves(((0.0, 0.5), (1.0, 1.5)))),
    "identity early": BlendCurves(SideCurves(((0.0, 0.5), (1.0, 1.5))), SideCurves(((0.0, 1.5), (1.0, 0.5)))),
    "motion deep": BlendCurves(SideCurves(LEVEL, ((0.0, 1.3), (1.0, 0.7))), SideCurves(LEVEL, ((0.0, 0.7), (1.0, 1.3)))),
}
