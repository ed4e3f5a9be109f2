"""Motions of the toy world: canonical centre paths, and the words that name them.

A path maps time in [0, 1] to an offset in units of `AMPLITUDE` cells; x grows to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

AMPLITUDE = 8.0
"""Cells per unit of a canonical path."""


@dataclass(frozen=True)
class Motion:
    """A named path. `phrase` is how captions say it; `is_base` tells whether the embedded base was trained on it."""

    name: str
    phrase: str
    path: Callable[[float], tuple[float, float]]
    is_base: bool


def _box(time: float) -> tuple[float, float]:
    side, along = divmod(min(time, 1.0) * 4, 1)
    corners = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (-1.0, -1.0)]
    (x0, y0), (x1, y1) = corners[int(side)], corners[int(side) + 1]
    return (0.8 * (x0 + along * (x1 - x0)), 0.8 * (y0 + along * (y1 - y0)))


def _zigzag(time: float) -> tuple[float, float]:
    phase = (2 * time) % 1.0
    return (2 * time - 1, 0.8 * (1 - 4 * abs(((phase + 0.25) % 1.0) - 0.5)))


MOTIONS: dict[str, Motion] = {
    motion.name: motion
    for motion in [
        Motion("left", "moves left", lambda t: (1 - 2 * t, 0.0), True),
        Motion("right", "moves right", lambda t: (2 * t - 1, 0.0), True),
        Motion("rise", "rises", lambda t: (0.0, 1 - 2 * t), True),
        Motion("fall", "falls", lambda t: (0.0, 2 * t - 1), True),
        Motion("dive", "dives", lambda t: (2 * t - 1, 2 * t - 1), True),
        Motion("bounce", "bounces", lambda t: (0.0, 1 - 2 * abs(math.sin(2 * math.pi * t))), True),
        Motion("circle", "circles", lambda t: (math.cos(2 * math.pi * t), math.sin(2 * math.pi * t)), True),
        Motion("sway", "sways", lambda t: (math.sin(2 * math.pi * t), 0.0), True),
        Motion("jump", "jumps", lambda t: (0.0, 1 - 8 * t * (1 - t)), True),
        Motion("still", "stays still", lambda t: (0.0, 0.0), True),
        Motion("figure-eight", "traces an eight", lambda t: (math.sin(2 * math.pi * t), 0.7 * math.sin(4 * math.pi * t)), False),
        Motion("zigzag", "zigzags", _zigzag, False),
        Motion("spiral", "spirals", lambda t: (t * math.cos(2.5 * math.pi * t), t * math.sin(2.5 * math.pi * t)), False),
        Motion("box", "walks a box", _box, False),
        Motion("hook", "hooks", lambda t: (min(4 * t, 2.0) - 1, max(4 * t - 2, 0.0) - 1), False),
        Motion("swoop", "swoops", lambda t: (2 * t - 1, 1 - 2 * abs(2 * t - 1)), False),
    ]
}


def _u_turn(time: float) -> tuple[float, float]:
    """To the right, half a circle downwards, and back to the left."""
    if 0.375 <= time < 0.625:
        angle = (time - 0.375) / 0.25 * math.pi
        return (0.4 + 0.6 * math.sin(angle), -0.6 * math.cos(angle))
    along = min(time, 1 - time) / 0.375
    return (-1 + 1.4 * along, -0.6 if time < 0.5 else 0.6)


def _stairs(time: float) -> tuple[float, float]:
    step, along = divmod(min(time, 1.0) * 4, 1)
    corners = [(-1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, -1.0), (1.0, -1.0)]
    (x0, y0), (x1, y1) = corners[int(step)], corners[int(step) + 1]
    return (x0 + along * (x1 - x0), y0 + along * (y1 - y0))


FRESH_MOTIONS: dict[str, Motion] = {
    motion.name: motion
    for motion in [
        Motion("u-turn", "turns back", _u_turn, False),
        Motion("stairs", "climbs stairs", _stairs, False),
        Motion("hop", "hops along", lambda t: (2 * t - 1, 1 - 2 * abs(math.sin(2 * math.pi * t))), False),
    ]
}
"""Motions on which nothing was ever chosen. They stand apart from `MOTIONS`, among which the best one is sought, so that scores of
those stay as they were."""
EVERY_MOTION = {**MOTIONS, **FRESH_MOTIONS}

BASE_MOTIONS = [motion.name for motion in MOTIONS.values() if motion.is_base]
TEST_MOTIONS = ["figure-eight", "zigzag", "spiral"]
"""Never seen by the base; the benchmark reports on these."""
TUNING_MOTIONS = ["box", "hook", "swoop"]
"""Never seen by the base; settings are chosen on these."""


def canonical_path(name: str, num_frames: int) -> torch.Tensor:
    """Offsets of motion `name`, in cells: (num_frames, 2) as (x, y)."""
    import torch  # names and words of the motions are known without it

    path = EVERY_MOTION[name].path
    times = [index / max(num_frames - 1, 1) for index in range(num_frames)]
    return torch.tensor([path(time) for time in times], dtype=torch.float32) * AMPLITUDE


def place_path(name: str, num_frames: int, free: int, generator: torch.Generator) -> torch.Tensor:
    """Whole-cell top-left positions of a sprite that moves along `name` somewhere in the frame.

    The path is scaled by 0.8 to 1.2 and shifted at random so that it stays inside.

    Args:
        free: how far a sprite can move in each direction, in cells (frame size minus sprite size).

    Returns:
        (num_frames, 2) integers in 0..free, as (x, y).
    """
    import torch

    path = canonical_path(name, num_frames)
    extent = (path.max(0).values - path.min(0).values).max().item()
    largest = min(1.2, free / extent) if extent else 1.2
    path = path * (0.8 + (largest - 0.8) * torch.rand((), generator=generator).item())
    low, high = -path.min(0).values, free - path.max(0).values
    start = low + (high - low) * torch.rand(2, generator=generator)
    return (path + start).round().long().clamp(0, free)
