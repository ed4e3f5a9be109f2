"""Depth bars: how much either side of a pair changes each block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

from .typography import BACKGROUND, INK, MARGIN, QUIET, ROLE_COLOURS, RULE, SMALL_SIZE, draw_bold, draw_text, draw_title, title_height

BAR_HEIGHT = 72
"""Pixels of the highest bar."""
PLOT_WIDTH = 480
LEFT = MARGIN + 78
ROW_GAP = 14
NARROWEST = 2


def depth_bars(norms: Mapping[str, Sequence[float]], title: str) -> Image.Image:
    """A row of bars for each side, from the first block to the deepest, all on one scale.

    Args:
        norms: by role, of each block; all of one length.

    Raises:
        ValueError: no sides, no blocks, or sides of different numbers of blocks.
    """
    num_blocks = {len(values) for values in norms.values()}
    if len(num_blocks) != 1 or 0 in num_blocks:
        raise ValueError(f"Bars need one or more sides of as many blocks each, given are {sorted(num_blocks)}.")
    (number,) = num_blocks
    highest = max(max(values) for values in norms.values()) or 1.0
    step = max(PLOT_WIDTH / number, NARROWEST)
    width = LEFT + round(step * number) + MARGIN
    top = MARGIN + title_height(title, width) + 8
    image = Image.new("RGB", (width, top + len(norms) * (BAR_HEIGHT + ROW_GAP) + 34), BACKGROUND)
    draw_title(image, title)
    draw = ImageDraw.Draw(image)
    for role, values in norms.items():
        base = top + BAR_HEIGHT
        draw_bold(image, (MARGIN, top), role, SMALL_SIZE, ROLE_COLOURS.get(role, INK))
        draw_text(image, (MARGIN, top + 20), f"{sum(value * value for value in values) ** 0.5:.3g}", SMALL_SIZE, QUIET)
        for index, value in enumerate(values):
            left, right = LEFT + round(index * step), LEFT + round((index + 1) * step) - (1 if step >= 4 else 0)
            height = round(BAR_HEIGHT * value / highest)
            if height:
                draw.rectangle([left, base - height, right - 1, base - 1], fill=ROLE_COLOURS.get(role, INK))
        draw.line([(LEFT, base), (width - MARGIN, base)], fill=RULE)
        top = base + ROW_GAP
    draw_text(image, (LEFT, top), "first block", SMALL_SIZE, QUIET)
    draw_text(image, (width - MARGIN, top), "deepest", SMALL_SIZE, QUIET, "ra")
    return image
