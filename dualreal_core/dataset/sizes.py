"""Sizes as (height, width): which pictures are too small, how one covers another, and what size a picture is trained at."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from .report import Unusable

SMALLEST_SIDE = 64
NOTED_ENLARGEMENT = 1.01
NOTED_CROP = 0.3
"""Share of a picture; a 4:3 photo in a 16:9 frame loses a quarter."""

Size = tuple[int, int]


@dataclass(frozen=True)
class TrainingSize:
    """What the user asked for, in pixels.

    Attributes:
        height, width: 0 follows the picture; with one of them 0, that one follows the other at the picture's aspect.
        multiple: sides are rounded to multiples of this, down where they are given.
    """

    height: int = 0
    width: int = 0
    multiple: int = 16

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if 0 < side < self.multiple:
                raise InputError(f"{name} is {side} px, and the VAE needs at least {self.multiple}; raise it, or set 0.")

    def fit(self, picture: Size, margin: float = 0.0) -> tuple[Size, Size]:
        """Canvas that a picture is cut to, and the size of the crops taken from it.

        Without a wanted size the canvas is the picture itself, so nothing is ever resampled.

        Raises:
            Unusable: the picture is too small.
        """
        if not self.height and not self.width:
            canvas, size = picture, tuple(self._down(int(side / (1 + margin) + 1e-6)) for side in picture)
        else:
            height = self.height or self.width * picture[0] / picture[1]
            width = self.width or self.height * picture[1] / picture[0]
            size = self._down(height), self._down(width)
            canvas = round(size[0] * (1 + margin)), round(size[1] * (1 + margin))
        if not min(size):
            raise Unusable(f"too small: {picture[1]}x{picture[0]} px hold no {self.multiple}x{self.multiple} px")
        if min(picture) < smallest_side(size):
            raise Unusable(f"too small: {picture[1]}x{picture[0]} px, and the shorter side needs {smallest_side(size)} px")
        return canvas, size

    def notes(self) -> list[str]:
        """What was rounded."""
        rounded = [(name, side) for name, side in (("width", self.width), ("height", self.height)) if side % self.multiple]
        return [f"{name} {side} is not a multiple of {self.multiple} px: {self._down(side)} is used" for name, side in rounded]

    def _down(self, side: float) -> int:
        return int(side) // self.multiple * self.multiple


def cover_box(picture: Size, size: Size) -> tuple[Size, int, int]:
    """Size to scale a picture to, with its aspect kept, and (top, left) of the centred crop of `size` in it."""
    scale = max(size[0] / picture[0], size[1] / picture[1])
    scaled = max(size[0], round(picture[0] * scale)), max(size[1], round(picture[1] * scale))
    return scaled, (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2


def smallest_side(size: Size) -> int:
    """The shorter side that a picture needs to be worth training on at `size`."""
    return max(1, min(SMALLEST_SIDE, min(size) // 4))


def framing_notes(name: str, picture: Size, canvas: Size) -> list[str]:
    """Names a picture that is stretched to cover its canvas, or of which much lies outside it."""
    notes = []
    enlargement = max(canvas[0] / picture[0], canvas[1] / picture[1])
    if enlargement > NOTED_ENLARGEMENT:
        notes.append(f"{name} is {picture[1]}x{picture[0]} and is enlarged {enlargement:.1f} times")
    aspects = picture[0] / picture[1], canvas[0] / canvas[1]
    lost = 1 - min(aspects) / max(aspects)
    if lost > NOTED_CROP:
        side = "height" if aspects[0] > aspects[1] else "width"
        notes.append(f"{name} is {picture[1]}x{picture[0]} and loses {lost:.0%} of its {side} to the crop")
    return notes
