"""What a dataset node shows while it encodes: a picture of its samples."""

from __future__ import annotations

import torch
from PIL import Image

from ..dualreal_core.dataset.segments import evenly_spread
from ..dualreal_core.plots.thumbnails import rows_of, thumbnail, thumbnail_sheet
from .progress import Progress

FRAMES_OF_CLIP = 5
MAX_PHOTOS, MAX_CLIPS = 40, 8


class DatasetView:
    """The progress of a dataset node, with a picture of its first samples.

    Args:
        total: samples at most.
        noun: of the samples, in the plural.
    """

    def __init__(self, node_id: str, total: int, noun: str) -> None:
        self.progress = Progress(node_id, total, f"Encoding {noun}")
        self.photos: list[Image.Image] = []
        self.clips: list[list[Image.Image]] = []

    def add(self, frames: torch.Tensor) -> None:
        """Counts a sample. frames: (F, H, W, 3) in [0, 1], of a photo one."""
        shown = frames[evenly_spread(len(frames), min(len(frames), FRAMES_OF_CLIP))]
        pictures = [thumbnail(frame.movedim(-1, 0) * 2 - 1) for frame in shown]
        if len(pictures) == 1 and len(self.photos) < MAX_PHOTOS:
            self.photos += pictures
        elif len(pictures) > 1 and len(self.clips) < MAX_CLIPS:
            self.clips.append(pictures)
        self.progress.advance(picture=thumbnail_sheet([*rows_of(self.photos), *self.clips]))
