"""Plots of the benchmark: what each row keeps of the motion against what it keeps of the identity, and scores by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ..plots.curves import nice_ticks
from ..plots.typography import (
    BACKGROUND,
    INK,
    MARGIN,
    OVERSAMPLING,
    QUIET,
    ROLE_COLOURS,
    RULE,
    SMALL_SIZE,
    TEXT_SIZE,
    Colour,
    draw_bold,
    draw_text,
    draw_title,
    line_height,
    text_width,
    title_height,
)
from .intervals import Estimate

PLOT_SIZE = 480
CURVE_WIDTH = 720
AXIS_LEFT, AXIS_BOTTOM = 64, 56
RADIUS = 9
PAD = RADIUS + 3
"""Room around the axes for dots that lie on their ends."""
EMPHASISED, PLAIN, PALE = ROLE_COLOURS["identity"], (96, 104, 116), (176, 182, 190)


@dataclass(frozen=True)
class Point:
    """A row in the ranking; `is_emphasised` sets ours off."""

    label: str
    identity: Estimate
    motion: Estimate
    is_emphasised: bool = False


class _Axes:
    """Two linear axes in a square of pixels; `canvas` is enlarged and reduced when it is finished."""

    def __init__(self, size: tuple[int, int], x_ticks: list[float], y_ticks: list[float]) -> None:
        self.size, self.x_ticks, self.y_ticks = size, x_ticks, y_ticks
        self.canvas = Image.new("RGB", tuple((length + 2 * PAD) * OVERSAMPLING for length in size), BACKGROUND)
        self.draw = ImageDraw.Draw(self.canvas)
        for tick in x_ticks:
            self.line([(tick, y_ticks[0]), (tick, y_ticks[-1])], RULE, 1)
        for tick in y_ticks:
            self.line([(x_ticks[0], tick), (x_ticks[-1], tick)], RULE, 1)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels right of the left edge and below the top one, not enlarged; half a pixel in, so that the edge lines show."""
        across = (x - self.x_ticks[0]) / (self.x_ticks[-1] - self.x_ticks[0])
        up = (y - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return across * (self.size[0] - 1) + 0.5, (1 - up) * (self.size[1] - 1) + 0.5

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float) -> None:
        """Joins points given in units of the axes."""
        pixels = [tuple(OVERSAMPLING * (PAD + place) for place in self.at(*point)) for point in points]
        self.draw.line(pixels, fill=colour, width=round(width * OVERSAMPLING), joint="curve")

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A disc with a white rim."""
        left, top = (OVERSAMPLING * (PAD + place) for place in self.at(x, y))
        for reach, fill in ((radius + 1.5, BACKGROUND), (radius, colour)):
            reach *= OVERSAMPLING
            self.draw.ellipse([left - reach, top - reach, left + reach, top + reach], fill=fill)

    def paste(self, image: Image.Image, left: int, top: int, names: tuple[str, str]) -> None:
        """Puts the axes into a picture and labels them: name of x below, of y above."""
        image.paste(self.canvas.reduce(OVERSAMPLING), (left - PAD, top - PAD))
        decimals = 0 if all(tick == round(tick) for tick in self.x_ticks) else 2
        for tick in self.x_ticks:
            place = left + self.at(tick, self.y_ticks[0])[0], top + self.size[1] + 6
            draw_text(image, place, f"{tick:.{decimals}f}", SMALL_SIZE, QUIET, "ma")
        for tick in self.y_ticks:
            draw_text(image, (left - 8, top + self.at(self.x_ticks[0], tick)[1]), f"{tick:.2f}", SMALL_SIZE, QUIET, "rm")
        draw_text(image, (left + self.size[0] / 2, top + self.size[1] + 26), names[0], TEXT_SIZE, INK, "ma")
        draw_text(image, (left - AXIS_LEFT + 8, top - line_height(TEXT_SIZE) - PAD), names[1], TEXT_SIZE, INK)


def ranking_plot(points: Sequence[Point], title: str) -> Image.Image:
    """Retention of the motion over that of the identity, with interval bars; numbers are explained beside the plot.

    Points without both retentions are left out.

    Raises:
        ValueError: no point is left.
    """
    shown = [point for point in points if point.identity.mean is not None and point.motion.mean is not None]
    if not shown:
        raise ValueError("A ranking needs at least one row with both retentions.")
    shown = sorted(shown, key=lambda point: -min(point.identity.mean, point.motion.mean))
    axes = _Axes((PLOT_SIZE, PLOT_SIZE), *(_ticks([_bounds(getattr(point, role)) for point in shown]) for role in ("identity", "motion")))
    for point in reversed(shown):
        colour = EMPHASISED if point.is_emphasised else PALE
        for role in ("identity", "motion"):
            bar, other = getattr(point, role), getattr(point, "motion" if role == "identity" else "identity").mean
            if bar.low is not None:
                ends = [(end, other) if role == "identity" else (other, end) for end in (bar.low, bar.high)]
                axes.line(ends, colour, 2)
    for point in reversed(shown):
        axes.dot(point.identity.mean, point.motion.mean, RADIUS, EMPHASISED if point.is_emphasised else PLAIN)

    labels = MARGIN + AXIS_LEFT + PLOT_SIZE + 60
    width = labels + round(max(text_width(point.label, TEXT_SIZE, is_bold=True) for point in shown)) + MARGIN
    left, top = MARGIN + AXIS_LEFT, MARGIN + title_height(title, width) + line_height(TEXT_SIZE) + 2 * PAD
    height = top + max(PLOT_SIZE + AXIS_BOTTOM, len(shown) * (line_height(TEXT_SIZE) + 4)) + MARGIN
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw_title(image, title)
    axes.paste(image, left, top, ("retention of the identity", "retention of the motion"))
    for number, point in enumerate(shown, 1):
        x, y = axes.at(point.identity.mean, point.motion.mean)
        draw_text(image, (left + x, top + y), str(number), SMALL_SIZE, BACKGROUND, "mm")
        draw, colour = (draw_bold, EMPHASISED) if point.is_emphasised else (draw_text, INK)
        line = top + (number - 1) * (line_height(TEXT_SIZE) + 4)
        draw_text(image, (labels - 10, line), str(number), TEXT_SIZE, colour, "ra")
        draw(image, (labels, line), point.label, TEXT_SIZE, colour)
    return image


def step_curves(curves: Mapping[str, Sequence[tuple[int, float]]], title: str, emphasised: str) -> Image.Image:
    """A score by training steps, one line per recipe.

    Args:
        curves: (step, score) of each point, by the recipe's name.
        emphasised: the recipe that is set off.

    Raises:
        ValueError: no points.
    """
    values = [score for curve in curves.values() for _, score in curve]
    if not values:
        raise ValueError("A curve needs at least one point.")
    last = max(step for curve in curves.values() for step, _ in curve)
    axes = _Axes((CURVE_WIDTH, PLOT_SIZE * 2 // 3), nice_ticks(0, last, 8, is_whole=True), _ticks([(min(values), max(values))]))
    for name, curve in curves.items():
        colour = EMPHASISED if name == emphasised else PLAIN
        axes.line(curve, colour, 2.4)
        for step, score in curve:
            axes.dot(step, score, 4, colour)
    width = MARGIN + AXIS_LEFT + CURVE_WIDTH + MARGIN
    top = MARGIN + title_height(title, width) + 2 * line_height(TEXT_SIZE) + 2 * PAD
    image = Image.new("RGB", (width, top + axes.size[1] + AXIS_BOTTOM), BACKGROUND)
    x, y = float(MARGIN), draw_title(image, title) + 4
    for name in curves:
        colour = EMPHASISED if name == emphasised else PLAIN
        ImageDraw.Draw(image).rounded_rectangle([x, y + 7, x + 20, y + 10], 2, fill=colour)
        draw_text(image, (x + 27, y), name, TEXT_SIZE)
        x += 27 + text_width(name, TEXT_SIZE) + 24
    axes.paste(image, MARGIN + AXIS_LEFT, top, ("training steps", "score"))
    return image


def _bounds(value: Estimate) -> tuple[float, float]:
    return (value.mean, value.mean) if value.low is None else (min(value.low, value.mean), max(value.high, value.mean))


def _ticks(bounds: Sequence[tuple[float, float]]) -> list[float]:
    """Ticks from 0 to 1, or further where values lie further."""
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    return nice_ticks(min(low, 0.0), max(high, 1.0), 6)
