"""Contact sheet: videos as rows of frames, with what they are beside them."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw

from ..dataset.segments import evenly_spread
from .thumbnails import thumbnail
from .typography import BACKGROUND, MARGIN, RULE, draw_label, label_height, wrap_labels

LABEL_WIDTHS = (96, 220)
FRAME_GAP = 4
ROW_GAP = 20
LABEL_GAP = 20
LABEL_PARTING = 4
"""Between a label and the smaller one below it."""


def contact_sheet(rows: list[tuple[str, str, torch.Tensor]], columns: int = 9) -> Image.Image:
    """One row per video, `columns` evenly spaced frames each; shorter videos and photos show what they have.

    Args:
        rows: (label, sublabel, video); 'identity 0.93' and 'motion 0.88' in a sublabel get their role's colour.
            video: (F, 3, H, W) in [-1, 1].

    Raises:
        ValueError: no rows, no columns, or a video of another shape.
    """
    if not rows or columns < 1:
        raise ValueError(f"A contact sheet of {len(rows)} rows and {columns} columns shows nothing; give at least one of each.")
    for _, _, video in rows:
        if video.ndim != 4 or video.shape[1] != 3 or not video.numel():
            raise ValueError(f"A video has shape {tuple(video.shape)}; it must be (F, 3, H, W) with at least one frame.")
    strips = [[thumbnail(frame) for frame in video[evenly_spread(len(video), min(len(video), columns))]] for _, _, video in rows]
    label_width, texts = wrap_labels([row[:2] for row in rows], LABEL_WIDTHS)
    heights = [
        max(label_height(*text, LABEL_PARTING), *(frame.height for frame in strip)) for text, strip in zip(texts, strips, strict=True)
    ]

    frames_left = MARGIN + label_width + LABEL_GAP
    width = frames_left + max(len(strip) * (strip[0].width + FRAME_GAP) for strip in strips) - FRAME_GAP + MARGIN
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(heights) + ROW_GAP * (len(rows) - 1)), BACKGROUND)
    top = MARGIN
    for text, strip, height in zip(texts, strips, heights, strict=True):
        draw_label(sheet, top, height, *text, LABEL_PARTING)
        for index, frame in enumerate(strip):
            sheet.paste(frame, (frames_left + index * (frame.width + FRAME_GAP), top + (height - frame.height) // 2))
        top += height + ROW_GAP
        if top < sheet.height - MARGIN:
            ImageDraw.Draw(sheet).line([(MARGIN, top - ROW_GAP // 2), (width - MARGIN, top - ROW_GAP // 2)], fill=RULE)
    return sheet
