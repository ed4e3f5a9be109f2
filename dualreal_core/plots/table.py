"""Score table: a row per video, a column per score, the best of each column set off."""

from __future__ import annotations

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
    Colour,
    draw_bold,
    draw_label,
    draw_text,
    draw_title,
    label_height,
    line_height,
    title_height,
    wrap,
    wrap_labels,
)

LABEL_WIDTHS = (140, 260)
COLUMN_WIDTH = 120
COLUMN_GAP = 24
ROW_PADDING = 10
BAR_HEIGHT = 6
BAR_GAP = 4
VALUE_SIZE = 16
VALUE_HEIGHT = line_height(VALUE_SIZE) + BAR_GAP + BAR_HEIGHT
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
    label_width, labels = wrap_labels([row[:2] for row in rows], LABEL_WIDTHS)
    heights = [max(label_height(*label), VALUE_HEIGHT) + 2 * ROW_PADDING for label in labels]
    width = 2 * MARGIN + label_width + len(headings) * (COLUMN_GAP + COLUMN_WIDTH)
    captions = wrap(caption, SMALL_SIZE, width - 2 * MARGIN)
    top = MARGIN + title_height(title, width) + len(captions) * line_height(SMALL_SIZE) + 16
    first = top + line_height(TEXT_SIZE) + ROW_PADDING

    image = Image.new("RGB", (width, first + sum(heights) + MARGIN // 2), BACKGROUND)
    y = draw_title(image, title) + 2
    for index, line in enumerate(captions):
        draw_text(image, (MARGIN, y + index * line_height(SMALL_SIZE)), line, SMALL_SIZE, QUIET)
    for column, heading in enumerate(headings):
        colour = ROLE_COLOURS.get(heading, INK)
        left = MARGIN + label_width + COLUMN_GAP + column * (COLUMN_WIDTH + COLUMN_GAP)
        draw_bold(image, (left, top), heading, TEXT_SIZE, colour)
        y = first
        values = [scores[heading] for _, _, scores in rows]
        for value, is_best, row_height in zip(values, _are_best(values), heights, strict=True):
            _draw_value(image, left, y + (row_height - VALUE_HEIGHT) // 2, value, colour, is_best)
            y += row_height
    y = first
    for label, row_height in zip(labels, heights, strict=True):
        ImageDraw.Draw(image).line([(MARGIN, y), (width - MARGIN, y)], fill=RULE)
        draw_label(image, y, row_height, *label)
        y += row_height
    return image


def shown_value(value: float | None) -> str:
    """Three decimals, without a negative zero."""
    return NO_VALUE if value is None else f"{round(value, 3) + 0.0:.3f}"


def _are_best(values: Sequence[float | None]) -> list[bool]:
    """Whether each is shown as the best is; none where there is nothing to be better than."""
    defined = [value for value in values if value is not None]
    if not defined or shown_value(max(defined)) == shown_value(min(defined)):
        return [False] * len(values)
    return [shown_value(value) == shown_value(max(defined)) for value in values]


def _draw_value(image: Image.Image, left: int, top: int, value: float | None, colour: Colour, is_best: bool) -> None:
    if is_best:
        draw_bold(image, (left, top), shown_value(value), VALUE_SIZE, colour)
    else:
        draw_text(image, (left, top), shown_value(value), VALUE_SIZE, INK if value is not None else QUIET)
    if value is None:
        return
    bar_top, draw = top + line_height(VALUE_SIZE) + BAR_GAP, ImageDraw.Draw(image)
    draw.rectangle([left, bar_top, left + COLUMN_WIDTH - 1, bar_top + BAR_HEIGHT - 1], fill=PANEL)
    length = round(COLUMN_WIDTH * min(max(value, 0.0), 1.0))
    if length:
        faint = tuple(round(255 - (255 - part) * 0.45) for part in colour)
        draw.rectangle([left, bar_top, left + length - 1, bar_top + BAR_HEIGHT - 1], fill=colour if is_best else faint)
