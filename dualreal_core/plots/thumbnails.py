"""Small pictures of frames, and sheets of them without words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from .typography import BACKGROUND

HEIGHT, WIDTH = 96, 240
"""At most so large."""
GAP = 4


def thumbnail(frame: torch.Tensor) -> Image.Image:
    """frame: (3, H, W) in [-1, 1]. Small frames are enlarged a whole number of times, so that pixels stay square."""
    levels = ((torch.nan_to_num(frame.detach().float()).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    picture = Image.fromarray(levels.permute(1, 2, 0).contiguous().cpu().numpy())
    factor = min(HEIGHT / picture.height, WIDTH / picture.width)
    if factor < 1:
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        return picture.resize(size, Image.Resampling.LANCZOS)
    return picture.resize((picture.width * round(factor), picture.height * round(factor)), Image.Resampling.NEAREST)


def thumbnail_frames(frames: torch.Tensor) -> torch.Tensor:
    """Frames (F, 3, H, W) in [-1, 1] no larger than their thumbnails, in the same form, which have the same thumbnails."""
    if frames.shape[-2] <= HEIGHT and frames.shape[-1] <= WIDTH:
        return frames
    pictures = [torch.from_numpy(np.array(thumbnail(frame))) for frame in frames]
    return torch.stack(pictures).movedim(-1, 1).float() / 127.5 - 1


def rows_of(pictures: Sequence[Image.Image], columns: int = 5) -> list[Sequence[Image.Image]]:
    """Pictures in rows of that many."""
    return [pictures[start : start + columns] for start in range(0, len(pictures), columns)]


def thumbnail_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of thumbnails below each other; each row has at least one."""
    widths = [sum(picture.width + GAP for picture in row) + GAP for row in rows]
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    sheet = Image.new("RGB", (max(widths), sum(heights) + GAP), BACKGROUND)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + GAP
        top += height
    return sheet
