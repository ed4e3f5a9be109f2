"""The toy world: named looks on light backgrounds, drawn cell by cell, and captions that say what is seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .figures import SPRITE_CELLS, Figure
from .paths import EVERY_MOTION, place_path

FRAME_CELLS = 32
NUM_FRAMES = 9
FREE_CELLS = FRAME_CELLS - SPRITE_CELLS

COLORS = {
    "red": (215, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 80, 210),
    "yellow": (235, 190, 30),
    "purple": (140, 60, 180),
    "black": (40, 40, 45),
}
BACKGROUNDS = {
    "white": (245, 245, 245),
    "sand": (238, 222, 190),
    "mint": (200, 238, 214),
    "sky": (200, 222, 245),
    "pink": (245, 208, 220),
}

_SHAPES = {
    "square": lambda x, y: max(abs(x), abs(y)) <= 5,
    "circle": lambda x, y: x * x + y * y <= 32,
    "triangle": lambda x, y: abs(x) <= (y + 6.5) / 2 and y <= 5.5,
    "diamond": lambda x, y: abs(x) + abs(y) <= 6,
    "heart": lambda x, y: ((abs(x) - 2.6) ** 2 + (y + 2.4) ** 2 <= 7.8) or (y > -2.6 and abs(x) <= 5.6 - (y + 2) * 0.75),
    "cross": lambda x, y: abs(x) <= 2 or abs(y) <= 2,
    "star": lambda x, y: abs(x * y) <= 2.3 and abs(x) + abs(y) <= 8,
    "ring": lambda x, y: 9 <= x * x + y * y <= 34,
}
_PATTERNS = {
    "stripes": lambda row, column: (row // 4) % 2 == 1,
    "checks": lambda row, column: (row // 6 + column // 6) % 2 == 1,
    "sides": lambda row, column: column >= SPRITE_CELLS // 2,
    "feet": lambda row, column: row >= 7,
}
SHAPES = list(_SHAPES)
PATTERNS = list(_PATTERNS)
FULL_SHAPES = ["square", "circle", "triangle", "diamond", "heart"]
"""Shapes wide enough to carry a pattern: on the thin ones neither codec nor score could tell patterns apart."""


@dataclass(frozen=True)
class Look:
    """A shape in one colour, or with a pattern in a second one."""

    shape: str
    color: str
    pattern: str | None = None
    second_color: str | None = None

    @property
    def phrase(self) -> str:
        """How captions name it."""
        name = f"a {self.color} {self.shape}"
        return name if self.pattern is None else f"{name} with {self.second_color} {self.pattern}"

    def sprite(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Colour (12, 12, 3) uint8 and coverage (12, 12) bool of this look."""
        color = torch.zeros(SPRITE_CELLS, SPRITE_CELLS, 3, dtype=torch.uint8)
        covered = torch.zeros(SPRITE_CELLS, SPRITE_CELLS, dtype=torch.bool)
        middle = (SPRITE_CELLS - 1) / 2
        for row in range(SPRITE_CELLS):
            for column in range(SPRITE_CELLS):
                if _SHAPES[self.shape](column - middle, row - middle):
                    second = self.pattern is not None and _PATTERNS[self.pattern](row, column)
                    color[row, column] = torch.tensor(COLORS[self.second_color if second else self.color], dtype=torch.uint8)
                    covered[row, column] = True
        return color, covered


def all_looks() -> list[Look]:
    """Every look that has a name, in a fixed order."""
    plain = [Look(shape, color) for shape in SHAPES for color in COLORS]
    return plain + [
        Look(shape, color, pattern, second)
        for shape in FULL_SHAPES
        for color in COLORS
        for pattern in PATTERNS
        for second in COLORS
        if second != color
    ]


def is_held_out(look: Look, motion: str, background: str) -> bool:
    """Whether the base never saw this caption: one in eight, chosen by the words alone."""
    words = f"{look.phrase} {EVERY_MOTION[motion].phrase} {background}"
    return sum((index + 1) * ord(letter) for index, letter in enumerate(words)) % 8 == 0


def caption(subject: str, motion: str | None, background: str) -> str:
    """The sentence for a scene; a still image has no motion."""
    doing = "" if motion is None else f" {EVERY_MOTION[motion].phrase}"
    return f"{subject}{doing} on {background}"


def draw(look: Look | Figure, background: str, positions: torch.Tensor) -> torch.Tensor:
    """Frames of a sprite at whole-cell positions.

    Args:
        positions: (F, 2) top-left cells as (x, y).

    Returns:
        (F, 32, 32, 3) uint8.
    """
    color, covered = look.sprite()
    frames = torch.tensor(BACKGROUNDS[background], dtype=torch.uint8).repeat(len(positions), FRAME_CELLS, FRAME_CELLS, 1)
    for frame, (x, y) in zip(frames, positions.tolist(), strict=True):
        window = frame[y : y + SPRITE_CELLS, x : x + SPRITE_CELLS]
        window[covered] = color[covered]
    return frames


def draw_clip(look: Look | Figure, motion: str, background: str, generator: torch.Generator, num_frames: int = NUM_FRAMES) -> torch.Tensor:
    """A clip of `look` performing `motion` from a random place: (num_frames, 32, 32, 3) uint8."""
    return draw(look, background, place_path(motion, num_frames, FREE_CELLS, generator))


def draw_still(look: Look | Figure, background: str, generator: torch.Generator) -> torch.Tensor:
    """An image of `look` at a random place: (1, 32, 32, 3) uint8."""
    return draw(look, background, torch.randint(FREE_CELLS + 1, (1, 2), generator=generator))
