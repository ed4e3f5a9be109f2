"""Blend curves: the weight of each side over the noise level times that over depth, drawn by hand; and their text form.

Bound to the noise level (sigma), not to the step: steps, schedulers, shifts and the experts that share denoising all agree on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ..errors import InputError
from .pair import ROLES, PairConfig, Role
from .stage_blender import Stage

MAX_WEIGHT = 4.0
"""The highest point of a curve: four times the weight at which a side was trained."""
AXES = ("sigma", "depth")
Points = tuple[tuple[float, float], ...]
"""(place, weight) of the points of a curve; places from 0 to 1, rising. Between points it is straight, outside of them level."""

LEVEL: Points = ((0.0, 1.0), (1.0, 1.0))
_LINE = re.compile(rf"({'|'.join(ROLES)})\s+({'|'.join(AXES)})\s+(\S.*)")
_POINT = re.compile(r"([^\s:]+):([^\s:]+)")


@dataclass(frozen=True)
class SideCurves:
    """The weight of one side, in units of its weight at an even blend: a curve over the noise level times a curve over depth.

    Attributes:
        sigma: over the noise level, 0 (clean) to 1 (noise).
        depth: over the groups of blocks, 0 (first) to 1 (deepest).
    """

    sigma: Points = LEVEL
    depth: Points = LEVEL

    def __post_init__(self) -> None:
        for axis in AXES:
            points = getattr(self, axis)
            places = [place for place, _ in points]
            is_inside = all(0 <= place <= 1 and 0 <= weight <= MAX_WEIGHT for place, weight in points)
            if not points or places != sorted(set(places)) or not is_inside:
                raise ValueError(
                    f"{axis} holds points of a place from 0 to 1, rising, and a weight from 0 to {MAX_WEIGHT:g}, given are {points}."
                )


@dataclass(frozen=True)
class BlendCurves:
    """Independent curves of both sides. `str()` gives the text form that `parse_curves` reads.

    Attributes:
        source: which node of a graph it comes from, so that the page can show there what was used; it is no part of the curves.
    """

    identity: SideCurves = SideCurves()
    motion: SideCurves = SideCurves()
    source: str | None = field(default=None, compare=False, repr=False)

    def side(self, role: Role) -> SideCurves:
        """The curves of a role."""
        return self.identity if role == "identity" else self.motion

    def blend(self, config: PairConfig) -> CurvedBlend:
        """The curves at the scale and with the groups of a pair."""
        return CurvedBlend(self, config.scale / 2, config.num_groups)

    def __str__(self) -> str:
        lines = [(role, axis, getattr(self.side(role), axis)) for role in ROLES for axis in AXES]
        written = [f"{role} {axis} {_written(points, axis)}" for role, axis, points in lines if points != LEVEL]
        return "\n".join(written) or f"{ROLES[0]} {AXES[0]} {_written(LEVEL, AXES[0])}"


@dataclass(frozen=True)
class CurvedBlend:
    """Weights from curves.

    Attributes:
        even: weight of a side at an even blend.
    """

    curves: BlendCurves
    even: float
    num_groups: int

    def scheduled(self, stage: Stage | None, noise_level: Stage | None = None) -> torch.Tensor:
        """-> (1 or B, 2 G), identity first"""
        if noise_level is None:  # a host that tells the stage alone: as at a shift of 1
            noise_level = 0.5 if stage is None else 1 - stage
        levels = torch.as_tensor(noise_level, dtype=torch.float32, device="cpu").reshape(-1)
        depths = torch.arange(self.num_groups) / max(self.num_groups - 1, 1)
        sides = [curve_at(own.sigma, levels)[:, None] * curve_at(own.depth, depths) for own in map(self.curves.side, ROLES)]
        return self.even * torch.cat(sides, dim=1)

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        """-> (1 or B, G, 2)"""
        return scheduled.unflatten(1, (2, self.num_groups)).transpose(1, 2)


def curve_at(points: Points, places: torch.Tensor) -> torch.Tensor:
    """A curve's weights at places (N,): (N,)."""
    xs, ys = (torch.tensor(values, dtype=torch.float32) for values in zip(*points, strict=True))
    after = torch.searchsorted(xs, places.contiguous(), right=True).clamp(1, max(len(xs) - 1, 1))
    if len(xs) == 1:
        return ys.expand(len(places))
    low, high = after - 1, after
    share = ((places - xs[low]) / (xs[high] - xs[low])).clamp(0, 1)
    return torch.lerp(ys[low], ys[high], share)


def parse_curves(text: str) -> BlendCurves:
    """Curves from their text form: lines (or parts between `;`) such as `identity sigma 1:0.4 0.8:0.4 0.67:1.4 0:1.4`.

    What is not named is 1 throughout. Points may come in any order. `#` begins a remark.

    Raises:
        InputError: a line cannot be read, names something twice, or leaves the range.
    """
    curves, seen = BlendCurves(), set()
    for line in re.split(r"[\n;]", text):
        plain = line.partition("#")[0].strip()
        if not plain:
            continue
        match = _LINE.fullmatch(plain)
        if match is None:
            raise InputError(
                f"The blend curves hold {plain!r}, which is no line of them: write a side ({' or '.join(ROLES)}), {' or '.join(AXES)}, and "
                "points of place:weight, as in 'identity sigma 1:0.4 0:1.4'."
            )
        role, axis, points = match[1], match[2], _points(match[3], plain)
        if (role, axis) in seen:
            raise InputError(f"The blend curves name {role} {axis} twice: leave one line out.")
        seen.add((role, axis))
        curves = replace(curves, **{role: replace(curves.side(role), **{axis: points})})
    return curves


def _points(text: str, line: str) -> Points:
    points: dict[float, float] = {}
    for part in text.split():
        match = _POINT.fullmatch(part)
        try:
            place, weight = (float(number) for number in match.groups()) if match else ()
        except ValueError as error:
            raise InputError(
                f"The blend curves hold {part!r} in {line!r}, which is no point: write place:weight, as in 0.8:1.2."
            ) from error
        if not (0 <= place <= 1 and 0 <= weight <= MAX_WEIGHT):
            raise InputError(f"The blend curves hold {part!r} in {line!r}: places go from 0 to 1, weights from 0 to {MAX_WEIGHT:g}.")
        if place in points:
            raise InputError(f"The blend curves have two points at {place:g} in {line!r}: leave one out.")
        points[place] = weight
    return tuple(sorted(points.items()))


def _written(points: Sequence[tuple[float, float]], axis: str) -> str:
    in_running_order = reversed(points) if axis == "sigma" else points
    return " ".join(f"{place:.6g}:{weight:.6g}" for place, weight in in_running_order)
