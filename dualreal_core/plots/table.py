"""Score table: a row per video, a column per score, the best of each column set off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from .typography import (
    BACKGROUND,
    INK,
    MARGIN,
    PANEL,
    QUIET,
    ROLE_COLOURS,
    RULE,
    SMALL_SIZE,
    TEXT_SIZE,
    draw_bold,
    draw_text,
    draw_title,
    line_height,
    text_width,
    title_height,
    wrap,
)

LABEL_WIDTHS = (140, 260)
COLUMN_WIDTH = 120
COLUMN_GAP = 24
ROW_PADDING = 10
BAR_HEIGHT = 6
BAR_GAP = 4
VALUE_SIZE = 16
NO_VALUE = "-"


def score_table(rows: Sequence[tuple[str, str, Mapping[str, float | None]]], title: str, caption: str = "") -> Image.Image:
    """Scores with a bar from 0 to 1 under each; higher is better. Rows that share the best shown value share the emphasis.

    Args:
        rows: (label, sublabel, scores by heading); a score that is not defined is None. All rows have the same headings.
        caption: what the scores are held against, under the title.

    Raises:
        ValueError: no rows, or rows of different headings.
    """
    headings = list(rows[0][2]) if rows else []
    if not headings or any(list(scores) != headings for _, _, scores in rows):
        raise ValueError("A score table needs at least one row, and the same headings in every row.")
    natural = max(max(text_width(label, TEXT_SIZE, is_bold=True), text_width(sublabel, SMALL_SIZE)) for label, sublabel, _ in rows)
    label_width = min(max(math.ceil(natural) + 1, LABEL_WIDTHS[0]), LABEL_WIDTHS[1])
    labels = [(wrap(label, TEXT_SIZE, label_width, is_bold=True), wrap(sublabel, SMALL_SIZE, label_width)) for label, sublabel, _ in rows]
    heights = [_row_height(*label) for label in labels]
    width = 2 * MARGIN + label_width + len(headings) * (COLUMN_GAP + COLUMN_WIDTH)
    captions = wrap(caption, SMALL_SIZE, width - 2 * MARGIN)
    top = MARGIN + title_height(title, width) + len(captions) * line_height(SMALL_SIZE) + 16
    height = top + line_height(TEXT_SIZE) + ROW_PADDING + sum(heights) + MARGIN // 2

    image = Image.new("RGB", (width, height), BACKGROUND)
    y = draw_title(image, title) + 2
    for line in captions:
        draw_text(image, (MARGIN, y), line, SMALL_SIZE, QUIET)
        y += line_height(SMALL_SIZE)
    lefts = [MARGIN + label_width + COLUMN_GAP + index * (COLUMN_WIDTH + COLUMN_GAP) for index in range(len(headings))]
    for left, heading in zip(lefts, headings, strict=True):
        draw_bold(image, (left, top), heading, TEXT_SIZE, ROLE_COLOURS.get(heading, INK))
    top += line_height(TEXT_SIZE) + ROW_PADDING
    best = {heading: _best([scores[heading] for _, _, scores in rows]) for heading in headings}
    for label, (_, _, scores), row_height in zip(labels, rows, heights, strict=True):
        ImageDraw.Draw(image).line([(MARGIN, top), (width - MARGIN, top)], fill=RULE)
        _draw_label(image, top, row_height, *label)
        for left, heading in zip(lefts, headings, strict=True):
            text = shown_value(scores[heading])
            colour = ROLE_COLOURS.get(heading, INK)
            _draw_value(image, left, top, row_height, text, scores[heading], colour, is_best=text == best[heading])
        top += row_height
    return image


def shown_value(value: float | None) -> str:
    """Three decimals, without a negative zero."""
    return NO_VALUE if value is None else f"{round(value, 3) + 0.0:.3f}"


def _best(values: list[float | None]) -> str | None:
    """As shown; None where there is nothing to be better than."""
    defined = [value for value in values if value is not None]
    return shown_value(max(defined)) if len(defined) > 1 and shown_value(max(defined)) != shown_value(min(defined)) else None


def _row_height(label: list[str], sublabel: list[str]) -> int:
    text = len(label) * line_height(TEXT_SIZE) + len(sublabel) * line_height(SMALL_SIZE)
    return max(text, line_height(VALUE_SIZE) + BAR_GAP + BAR_HEIGHT) + 2 * ROW_PADDING


def _draw_label(image: Image.Image, top: int, row_height: int, label: list[str], sublabel: list[str]) -> None:
    y = top + (row_height - len(label) * line_height(TEXT_SIZE) - len(sublabel) * line_height(SMALL_SIZE)) // 2
    for line in label:
        draw_bold(image, (MARGIN, y), line, TEXT_SIZE)
        y += line_height(TEXT_SIZE)
    for line in sublabel:
        draw_text(image, (MARGIN, y), line, SMALL_SIZE, QUIET)
        y += line_height(SMALL_SIZE)


def _draw_value(
    image: Image.Image,
    left: int,
    top: int,
    row_height: int,
    text: str,
    value: float | None,
    colour: tuple[int, int, int],
    is_best: bool,
) -> None:
    y = top + (row_height - line_height(VALUE_SIZE) - BAR_GAP - BAR_HEIGHT) // 2
    if is_best:
        draw_bold(image, (left, y), text, VALUE_SIZE, colour)
    else:
        draw_text(image, (left, y), text, VALUE_SIZE, INK if value is not None else QUIET)
    if value is None:
        return
    bar_top = y + line_height(VALUE_SIZE) + BAR_GAP
    draw = ImageDraw.Draw(image)
    draw.rectangle([left, bar_top, left + COLUMN_WIDTH - 1, bar_top + BAR_HEIGHT - 1], fill=PANEL)
    length = round(COLUMN_WIDTH * min(max(value, 0.0), 1.0))
    if length:
        faint = tuple(round(255 - (255 - part) * 0.45) for part in colour)
        draw.rectangle([left, bar_top, left + length - 1, bar_top + BAR_HEIGHT - 1], fill=colour if is_best else faint)
