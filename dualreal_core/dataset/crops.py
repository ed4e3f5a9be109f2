"""Views: windows into a photo at whole-pixel places, so that a subject is seen off-centre and moving, never resampled."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

STATIC_EVERY = 4


@dataclass(frozen=True)
class CropSettings:
    """Attributes:
        num_crops: stills per photo, and pan clips per photo when `num_clip_frames` > 1.
        margin: how much larger than the training size the photo is cut, 0.25 for a quarter; views move within it.
        num_clip_frames: length of the pan clips; 1 makes none.
    """

    num_crops: int = 1
    margin: float = 0.0
    num_clip_frames: int = 1

    def __post_init__(self) -> None:
        if self.num_crops < 1:
            raise ValueError(f"num_crops is {self.num_crops}; it must be 1 or more.")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin is {self.margin}; it must lie between 0 and 1.")
        if self.num_clip_frames < 1:
            raise ValueError(f"num_clip_frames is {self.num_clip_frames}; it must be 1 or more.")
        if self.num_crops > 1 and self.margin == 0:
            raise ValueError(f"num_crops is {self.num_crops} with margin 0, which repeats one view; raise margin or use 1 view.")

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that photos are cut to before views are taken."""
        return round(size[0] * (1 + self.margin)), round(size[1] * (1 + self.margin))


def still_place(slack: tuple[int, int], fingerprint: str, view: int) -> tuple[int, int]:
    """(top, left) of a still; view 0 is centred.

    slack: (height, width) by which the canvas exceeds the window.
    """
    if view == 0:
        return slack[0] // 2, slack[1] // 2
    generator = _generator(fingerprint, view, "still")
    return generator.randint(0, slack[0]), generator.randint(0, slack[1])


def pan_places(slack: tuple[int, int], fingerprint: str, view: int, num_frames: int) -> list[tuple[int, int]]:
    """(top, left) per frame: a straight line at constant speed, rounded to whole pixels; every fourth view stands still."""
    generator = _generator(fingerprint, view, "pan")
    begin = generator.randint(0, slack[0]), generator.randint(0, slack[1])
    end = generator.randint(0, slack[0]), generator.randint(0, slack[1])
    if view % STATIC_EVERY == STATIC_EVERY - 1:
        end = begin
    steps = max(1, num_frames - 1)
    return [tuple(round(a + (b - a) * frame / steps) for a, b in zip(begin, end, strict=True)) for frame in range(num_frames)]


def _generator(fingerprint: str, view: int, purpose: str) -> random.Random:
    digest = hashlib.sha256(f"{fingerprint}:{view}:{purpose}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
