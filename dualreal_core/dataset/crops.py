"""Crops: pieces of a photo at whole-pixel places, so that a subject is seen off-centre, never resampled."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from .sizes import Size


@dataclass(frozen=True)
class CropSettings:
    """Attributes:
        num_crops: samples per photo.
        crop_margin: how much larger than the training size the photo is cut, 0.25 for a quarter; crops move within it.
    """

    num_crops: int = 1
    crop_margin: float = 0.0

    def __post_init__(self) -> None:
        if self.num_crops < 1:
            raise ValueError(f"num_crops is {self.num_crops}; it must be 1 or more.")
        if not 0 <= self.crop_margin <= 1:
            raise ValueError(f"crop_margin is {self.crop_margin}; it must lie between 0 and 1.")
        if self.num_crops > 1 and self.crop_margin == 0:
            raise ValueError(
                f"num_crops is {self.num_crops} with crop_margin 0, which repeats one crop; raise crop_margin or set num_crops to 1."
            )


def crop_place(canvas: Size, size: Size, fingerprint: str, crop: int) -> tuple[int, int]:
    """(top, left) of a crop of `size` in the canvas of the photo with this fingerprint; crop 0 is centred."""
    slack = canvas[0] - size[0], canvas[1] - size[1]
    if crop == 0:
        return slack[0] // 2, slack[1] // 2
    digest = hashlib.sha256(f"{fingerprint}:{crop}:still".encode()).digest()
    generator = random.Random(int.from_bytes(digest[:8], "big"))
    return generator.randint(0, slack[0]), generator.randint(0, slack[1])
