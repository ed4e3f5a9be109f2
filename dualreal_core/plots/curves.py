"""Loss curves: every step as a faint point, each role's running mean, and rings where it was evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .typography import (
    BACKGROUND,
    INK,
    MARGIN,
    OVERSAMPLING,
    QUIET,
    ROLE_COLOURS,
    RULE,
    SMALL_SIZE,
    TEXT_SIZE,
    draw_text,
    draw_title,
    line_height,
    text_width,
    title_height,
)

WIDTH, PLOT_HEIGHT = 960, 360
AXIS_HEIGHT = 48
MAX_DOTTED = 30
"""Lines of so few steps are drawn with a dot at each."""
MOST_DRAWN = 3000
"""Points of a line and of a role's steps: more than three per pixel of the width show nothing new and take time."""
Points = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Steps and losses by role."""
Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""`Points` in order of the steps, all losses finite."""
FENCE = 10
"""Losses further from the quartiles than this many times their distance or size do not stretch the axis."""


def loss_curves(
    records: Sequence[Mapping[str, object]], title: str, evaluated: Mapping[str, Sequence[tuple[int, float]]] | None = None
) -> Image.Image:
    """Losses by step.

    Args:
        records: `step`, `role` and `loss` of each optimizer step; losses that are not finite are left out.
        evaluated: (step, loss) of each role's evaluations at fixed noise, drawn as rings on a thin line.
    """
    by_role = {role: [(record["step"], record["loss"]) for record in records if record["role"] == role] for role in ROLE_COLOURS}
    return draw_losses(_columns(by_role), title, _columns(evaluated or {}))


def draw_losses(trained: Points, title: str, evaluated: Points) -> Image.Image:
    """`loss_curves` of steps and losses by role, in any order. Of long runs not every point is drawn, but every one counts."""
    points = _curves({role: trained[role] for role in ROLE_COLOURS if role in trained})
    rings = _curves({role: evaluated[role] for role in points if role in evaluated})
    drawn = [*points.values(), *rings.values()]
    losses = np.concatenate([losses for _, losses in points.values()]) if points else np.array([0.0, 1.0])
    steps = np.concatenate([steps for steps, _ in drawn]) if points else np.array([0.0, 1.0])
    ranges = [robust_range(part) for _, part in drawn] or [(0.0, 1.0)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    loss_ticks = nice_ticks(low, high, 5)
    low, high = (loss_ticks[0] - (0.02 if loss_ticks[0] else 0) * (high - low), loss_ticks[-1] + 0.02 * (high - low))

    top = MARGIN + title_height(title, WIDTH) + line_height(TEXT_SIZE) + 16
    image = Image.new("RGB", (WIDTH, top + PLOT_HEIGHT + AXIS_HEIGHT + MARGIN // 2), BACKGROUND)
    left = MARGIN + round(max(text_width(_label(tick, loss_ticks), SMALL_SIZE) for tick in loss_ticks)) + 10
    plot = _Plot((left, top, WIDTH - MARGIN, top + PLOT_HEIGHT), *_step_range(steps), low, high)
    step_ticks = [tick for tick in nice_ticks(plot.first, plot.last, 8, is_whole=True) if plot.first <= tick <= plot.last]

    image.paste(_draw_lines(plot, points, rings, loss_ticks), (left, top))
    _draw_texts(image, plot, loss_ticks, step_ticks)
    num_outside = int(((losses < low) | (losses > high)).sum()) if points else 0
    _draw_legend(image, draw_title(image, title) + 4, points, bool(rings), num_outside)
    if not points:
        draw_text(image, ((left + WIDTH - MARGIN) / 2, top + PLOT_HEIGHT / 2), "no steps yet", TEXT_SIZE, QUIET, "mm")
    return image


class _Plot:
    """Where steps and losses lie in the picture; `box` is (left, top, right, bottom)."""

    def __init__(self, box: tuple[int, int, int, int], first: float, last: float, low: float, high: float) -> None:
        self.box, self.first, self.last, self.low, self.high = box, first, last, low, high
        self.width, self.height = box[2] - box[0], box[3] - box[1]

    def x(self, step: float) -> float:
        """Pixels right of the left edge."""
        return (step - self.first) / (self.last - self.first) * self.width

    def y(self, loss: float) -> float:
        """Pixels below the top edge; losses outside the axis lie on its ends."""
        return (1 - (min(max(loss, self.low), self.high) - self.low) / (self.high - self.low)) * self.height


def nice_ticks(low: float, high: float, num_wanted: int, is_whole: bool = False) -> list[float]:
    """About `num_wanted` multiples of 1, 2, 2.5 or 5 times a power of ten, which reach from `low` or below to `high` or above."""
    rough = (high - low) / num_wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    if is_whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean of a twentieth of the values, of as many as there are at both ends; taken twice to be smooth."""
    index, reach = np.arange(len(values)), len(values) // 40
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, len(values))
    for _ in range(2):
        sums = np.concatenate([[0.0], np.cumsum(values)])
        values = (sums[last] - sums[first]) / (last - first)
    return values


def _curves(measured: Points) -> Curves:
    """Steps in order, and their losses, of those that are finite; roles without any are left out."""
    curves = {}
    for role, values in measured.items():
        steps, losses = (np.array(part, dtype=float) for part in values)
        is_finite = np.isfinite(losses)
        steps, losses = steps[is_finite], losses[is_finite]
        order = np.lexsort((losses, steps))
        curves[role] = steps[order], losses[order]
    return {role: curve for role, curve in curves.items() if len(curve[0])}


def _columns(measured: Mapping[str, Sequence[tuple[float, float]]]) -> Points:
    return {role: tuple(zip(*values, strict=True)) for role, values in measured.items() if values}


def _thinned(places: np.ndarray) -> np.ndarray:
    """`MOST_DRAWN` of them, evenly spaced from the first to the last; all where they are fewer."""
    if len(places) <= MOST_DRAWN:
        return places
    return places[np.linspace(0, len(places) - 1, MOST_DRAWN).round().astype(int)]


def robust_range(losses: np.ndarray) -> tuple[float, float]:
    """Range of one role's losses without outliers; from 0 where that wastes less than a half."""
    lower, upper = np.percentile(losses, [25, 75], method="lower")  # interpolated, one outlier among few is in the quartile
    reach = FENCE * max(upper - lower, abs(upper))
    inside = losses[(losses >= lower - reach) & (losses <= upper + reach)]
    low, high = float(inside.min()), float(inside.max())
    if 0 < low < high / 2:
        low = 0.0
    if high - low < 1e-6 * max(abs(high), 1e-6):
        low, high = low - 0.1 * max(abs(low), 1e-6), high + 0.1 * max(abs(high), 1e-6)
    return low, high


def _step_range(steps: np.ndarray) -> tuple[float, float]:
    first, last = float(steps.min()), float(steps.max())
    pad = max(0.012 * (last - first), 0.5 if first == last else 0.0)
    return first - pad, last + pad


def _draw_lines(plot: _Plot, points: Curves, rings: Curves, ticks: list[float]) -> Image.Image:
    canvas = Image.new("RGB", (plot.width * OVERSAMPLING, (plot.height + 1) * OVERSAMPLING), BACKGROUND)
    draw = ImageDraw.Draw(canvas, "RGBA")
    for tick in ticks:
        y = (round(plot.y(tick)) + 0.5) * OVERSAMPLING
        draw.line([(0, y), (canvas.width, y)], fill=RULE, width=OVERSAMPLING)
    num_points = max((len(steps) for steps, _ in points.values()), default=0)
    radius, opacity = (2.6, 120) if num_points < 150 else (2.0, 80) if num_points < 1500 else (1.4, 45)
    for role, (steps, losses) in points.items():
        is_outside = (losses < plot.low) | (losses > plot.high)
        for place in np.sort(np.concatenate([_thinned(np.flatnonzero(~is_outside)), _thinned(np.flatnonzero(is_outside))])):
            fill = *ROLE_COLOURS[role], 200 if is_outside[place] else opacity
            _draw_point(draw, plot.x(steps[place]), plot.y(losses[place]), radius, fill, is_outside[place])
    for role, (steps, losses) in points.items():
        is_inside = (losses >= plot.low) & (losses <= plot.high)
        inside, means = steps[is_inside], running_mean(losses[is_inside])
        line = [(plot.x(inside[place]), plot.y(means[place])) for place in _thinned(np.arange(len(means)))]
        enlarged = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in line]
        draw.line(enlarged, fill=BACKGROUND, width=round(4.6 * OVERSAMPLING), joint="curve")
        draw.line(enlarged, fill=ROLE_COLOURS[role], width=round(2.4 * OVERSAMPLING), joint="curve")
        for x, y in line if len(line) <= MAX_DOTTED else ():
            _draw_point(draw, x, y, 3.6, (*ROLE_COLOURS[role], 255), False)
    for role, (steps, losses) in rings.items():
        places = [(plot.x(steps[place]), plot.y(losses[place])) for place in _thinned(np.arange(len(steps)))]
        draw.line([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in places], fill=ROLE_COLOURS[role], width=OVERSAMPLING)
        for x, y in places:
            _draw_point(draw, x, y, 4.4, (*ROLE_COLOURS[role], 255), False)
            _draw_point(draw, x, y, 2.8, (*BACKGROUND, 255), False)
    return canvas.reduce(OVERSAMPLING)


def _draw_point(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, int, int, int], is_outside: bool) -> None:
    """A dot; for a loss outside the axis a triangle at its end."""
    x, y, radius = x * OVERSAMPLING, y * OVERSAMPLING, radius * OVERSAMPLING
    if not is_outside:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
        return
    inward = 1 if y < radius else -1
    size = 3.2 * OVERSAMPLING
    draw.polygon([(x, y), (x - size, y + inward * 1.7 * size), (x + size, y + inward * 1.7 * size)], fill=fill)


def _draw_texts(image: Image.Image, plot: _Plot, loss_ticks: list[float], step_ticks: list[float]) -> None:
    left, top, right, bottom = plot.box
    for tick in loss_ticks:
        draw_text(image, (left - 8, top + plot.y(tick)), _label(tick, loss_ticks), SMALL_SIZE, QUIET, "rm")
    draw = ImageDraw.Draw(image)
    draw.line([(left, bottom), (right, bottom)], fill=QUIET)
    for tick in step_ticks:
        x = left + round(plot.x(tick))
        draw.line([(x, bottom), (x, bottom + 4)], fill=QUIET)
        draw_text(image, (x, bottom + 8), f"{tick:.0f}", SMALL_SIZE, QUIET, "ma")
    draw_text(image, ((left + right) / 2, bottom + 28), "step", SMALL_SIZE, INK, "ma")


def _draw_legend(image: Image.Image, top: int, points: Curves, has_rings: bool, num_outside: int) -> None:
    left, middle = float(MARGIN), top + line_height(TEXT_SIZE) // 2
    for role, (_, losses) in points.items():
        ImageDraw.Draw(image).rounded_rectangle([left, middle - 2, left + 20, middle + 1], 2, fill=ROLE_COLOURS[role])
        text = f"{role} loss, {len(losses)} {'step' if len(losses) == 1 else 'steps'}"
        draw_text(image, (left + 27, middle), text, TEXT_SIZE, INK, "lm")
        left += 27 + text_width(text, TEXT_SIZE) + 24
    if has_rings:
        ImageDraw.Draw(image).ellipse([left + 1, middle - 4, left + 9, middle + 4], outline=QUIET, width=2)
        draw_text(image, (left + 16, middle), "evaluated, each alone", TEXT_SIZE, QUIET, "lm")
    if num_outside:
        text = f"{num_outside} {'step lies' if num_outside == 1 else 'steps lie'} outside the axis (triangles)"
        draw_text(image, (WIDTH - MARGIN, middle), text, SMALL_SIZE, QUIET, "rm")


def _label(tick: float, ticks: list[float]) -> str:
    distance = ticks[1] - ticks[0]
    if not 1e-4 <= distance < 1e5:
        return f"{tick:.3g}"
    decimals = next((n for n in range(7) if abs(round(distance, n) - distance) < 1e-6 * distance), 7)
    return f"{tick:.{decimals}f}"
