"""Blend map: which side leads where in denoising and at which depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from PIL import Image, ImageDraw

from .typography import (
    BACKGROUND,
    INK,
    MARGIN,
    PANEL,
    QUIET,
    ROLE_COLOURS,
    SMALL_SIZE,
    Colour,
    draw_bold,
    draw_text,
    draw_title,
    line_height,
    text_width,
    title_height,
)

LEFT = MARGIN + 70
CELL_HEIGHT = 34
AXIS_HEIGHT = 48
CELL_WIDTHS = (14.0, 64.0)
MAX_MAP_WIDTH = 1200
MIN_MAP_WIDTH = 260
MIN_COLUMN_WIDTH = 2
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
BAR_GAP, BAR_WIDTH, BAR_HEIGHT, BAR_LABELS = 32, 14, 170, 104
EVEN: Colour = (247, 246, 243)


def blend_map(table: torch.Tensor, scale: float, title: str, stages: Sequence[float] = (), end: float = 1.0) -> Image.Image:
    """Share of the identity side, w_identity / (w_identity + w_motion), over denoising and by block group.

    Args:
        table: (S, G, 2), identity first, steps from noise to clean, groups from shallow to deep.
        scale: sum of both weights the pair was made with; named where the table departs from it.
        stages: where in denoising each step begins, 0 (noise) to 1, rising; it reaches to the next one. Without them steps are drawn
            equally wide.
        end: where the last step ends.

    Raises:
        ValueError: the table has another shape.
    """
    if table.ndim != 3 or table.shape[2] != 2 or not table.numel():
        raise ValueError(f"The table has shape {tuple(table.shape)}; it must be (steps, groups, 2).")
    table = table.detach().double().cpu()
    sums = table.sum(dim=2)
    shares = torch.nan_to_num(table[..., 0] / sums, nan=-1.0, posinf=-1.0, neginf=-1.0).tolist()  # -1: both sides off
    num_steps, num_groups = len(shares), len(shares[0])

    cell_width = min(max(640 / num_steps, CELL_WIDTHS[0]), CELL_WIDTHS[1], MAX_MAP_WIDTH / num_steps)
    cell_width = max(cell_width, MIN_MAP_WIDTH / num_steps)
    map_width, map_height = round(cell_width * num_steps), CELL_HEIGHT * num_groups
    edges = [*stages, max(end, stages[-1])] if stages else [step / num_steps for step in range(num_steps + 1)]
    width = LEFT + map_width + BAR_GAP + BAR_WIDTH + BAR_LABELS + MARGIN // 2
    top = MARGIN + title_height(title, width) + line_height(SMALL_SIZE) + 22
    height = top + max(map_height + AXIS_HEIGHT, BAR_HEIGHT + MARGIN // 2) + MARGIN // 2
    image = Image.new("RGB", (width, height), BACKGROUND)
    draw_text(image, (MARGIN, draw_title(image, title) + 4), _caption(sums, scale), SMALL_SIZE, QUIET)

    _draw_cells(image, shares, [LEFT + round(edge * map_width) for edge in edges], top)
    _draw_depths(image, num_groups, top)
    if stages:
        _draw_stages(image, map_width, top + map_height)
    else:
        _draw_steps(image, num_steps, cell_width, top + map_height)
    _draw_bar(image, LEFT + map_width + BAR_GAP, top + max(map_height - BAR_HEIGHT, 0) // 2)
    return image


def share_colour(share: float) -> Colour:
    """From motion's colour at 0 over near-white at 1/2 to identity's at 1."""
    role = "identity" if share >= 0.5 else "motion"
    weight = min(abs(share - 0.5) * 2, 1.0)
    return tuple(round(even + (full - even) * weight) for even, full in zip(EVEN, ROLE_COLOURS[role], strict=True))


def _caption(sums: torch.Tensor, scale: float) -> str:
    low, high = float(sums.min()), float(sums.max())
    if max(abs(low - scale), abs(high - scale)) <= 1e-3 * abs(scale):
        return f"identity share of the blend; both weights sum to {scale:g}"
    spread = f"{high:.3g}" if high - low <= 1e-3 * abs(high) else f"between {low:.3g} and {high:.3g}"
    return f"identity share of the blend; both weights sum to {spread} (pair: {scale:g})"


def _draw_cells(image: Image.Image, shares: list[list[float]], edges: list[int], top: int) -> None:
    draw = ImageDraw.Draw(image)
    for (left, right), groups in zip(pairwise(edges), shares, strict=True):
        left = min(left, right - MIN_COLUMN_WIDTH)
        gap = 1 if right - left >= 8 else 0
        value_size = next((size for size in (13, 12, 11, 10) if text_width("0.00", size) + 6 <= right - left), 0)
        for group, share in enumerate(groups):
            y = top + group * CELL_HEIGHT
            colour = PANEL if share < 0 else share_colour(share)
            draw.rectangle([left, y, right - gap - 1, y + CELL_HEIGHT - gap - 1], fill=colour)
            if value_size:
                is_dark = sum(colour) < 440
                text = "off" if share < 0 else f"{share:.2f}"
                draw_text(image, ((left + right) / 2, y + CELL_HEIGHT / 2), text, value_size, BACKGROUND if is_dark else INK, "mm")


def _draw_depths(image: Image.Image, num_groups: int, top: int) -> None:
    for group in range(num_groups):
        draw_text(image, (LEFT - 10, top + (group + 0.5) * CELL_HEIGHT), str(group + 1), SMALL_SIZE, QUIET, "rm")
    first, last = top + CELL_HEIGHT / 2, top + (num_groups - 0.5) * CELL_HEIGHT
    if num_groups > 1:
        draw_text(image, (MARGIN, first), "shallow", SMALL_SIZE, INK, "lm")
        draw_text(image, (MARGIN, last), "deep", SMALL_SIZE, INK, "lm")
    if num_groups != 2:
        draw_text(image, (MARGIN, (first + last) / 2), "group", SMALL_SIZE, QUIET, "lm")


def _draw_stages(image: Image.Image, map_width: int, bottom: int) -> None:
    for stage in TICKS:
        draw_text(image, (LEFT + stage * map_width, bottom + 6), f"{stage:g}", SMALL_SIZE, QUIET, "ma")
    _draw_direction(image, map_width, bottom, "denoising stage")


def _draw_steps(image: Image.Image, num_steps: int, cell_width: float, bottom: int) -> None:
    room = text_width(str(num_steps), SMALL_SIZE) + 18
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, num_steps) if n * cell_width >= room or n >= num_steps)
    labelled = sorted({0, *range(every - 1, num_steps, every)})
    for step in labelled:
        if step and (step - labelled[0]) * cell_width < room:
            continue
        draw_text(image, (LEFT + (step + 0.5) * cell_width, bottom + 6), str(step + 1), SMALL_SIZE, QUIET, "ma")
    _draw_direction(image, round(cell_width * num_steps), bottom, "denoising step")


def _draw_direction(image: Image.Image, map_width: int, bottom: int, what: str) -> None:
    draw_text(image, (LEFT, bottom + 28), "noise", SMALL_SIZE, INK)
    draw_text(image, (LEFT + map_width / 2, bottom + 28), what, SMALL_SIZE, QUIET, "ma")
    draw_text(image, (LEFT + map_width, bottom + 28), "clean", SMALL_SIZE, INK, "ra")


def _draw_bar(image: Image.Image, left: int, top: int) -> None:
    draw = ImageDraw.Draw(image)
    for y in range(BAR_HEIGHT):
        draw.line([(left, top + y), (left + BAR_WIDTH - 1, top + y)], fill=share_colour(1 - y / (BAR_HEIGHT - 1)))
    right = left + BAR_WIDTH + 8
    draw_bold(image, (right, top + 1), "1 identity", SMALL_SIZE, ROLE_COLOURS["identity"])
    draw_text(image, (right, top + BAR_HEIGHT // 2), "0.5 even", SMALL_SIZE, QUIET, "lm")
    draw_bold(image, (right, top + BAR_HEIGHT - 1), "0 motion", SMALL_SIZE, ROLE_COLOURS["motion"], "ls")
