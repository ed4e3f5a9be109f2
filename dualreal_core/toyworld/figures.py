"""Figures of the toy world: small faces from a few parts. The base sees thousands of them, all called 'a figure'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import fresh_parts

if TYPE_CHECKING:
    import torch

SPRITE_CELLS = 12

INKS = {
    "crimson": (196, 30, 58),
    "forest": (34, 120, 50),
    "navy": (28, 42, 130),
    "gold": (222, 170, 20),
    "violet": (130, 50, 170),
    "rust": (190, 90, 30),
    "teal": (0, 128, 128),
    "black": (35, 35, 40),
    "rose": (225, 85, 140),
    "slate": (95, 110, 130),
}

# Left halves of the silhouettes, mirrored to 12 columns; '#' is body.
_BODIES = {
    "block": ["......", "......", ".#####", ".#####", ".#####", ".#####", ".#####", ".#####", ".#####", ".#####", ".#####", "......"],
    "round": ["......", "......", "....##", "..####", ".#####", ".#####", ".#####", ".#####", ".#####", "..####", "....##", "......"],
    "ghost": ["......", "......", "...###", "..####", ".#####", ".#####", ".#####", ".#####", ".#####", ".#####", ".##.##", "......"],
    "drop": ["......", "......", ".....#", "....##", "...###", "..####", ".#####", ".#####", ".#####", ".#####", "..####", "......"],
    "tall": ["......", "......", "..####", "..####", "..####", "..####", "..####", "..####", "..####", "..####", "..####", "......"],
    "wide": ["......", "......", "......", "..####", "######", "######", "######", "######", "######", "######", "..####", "......"],
}
_TOPS = {
    "bare": [],
    "ears": [(0, 2), (0, 3), (1, 2), (1, 3)],
    "antenna": [(0, 5), (1, 5)],
    "horns": [(0, 1), (1, 1), (1, 2), (2, 2)],
}
_EYES = {
    "dots": [(5, 3), (5, 4), (6, 3), (6, 4)],
    "slits": [(5, 3), (6, 3)],
    "visor": [(5, 2), (5, 3), (5, 4), (5, 5)],
    "close": [(5, 4), (6, 4)],
}
_MOUTHS = {
    "line": [(8, 4), (8, 5)],
    "smile": [(8, 3), (9, 4), (9, 5)],
    "open": [(8, 5), (9, 5)],
    "beard": [(8, 3), (8, 4), (8, 5), (9, 4), (9, 5)],
}
_ANY_INK = {**INKS, **fresh_parts.INKS}
_ANY_BODY = {**_BODIES, **fresh_parts.BODIES}
_ANY_MARKS = ({**_TOPS, **fresh_parts.TOPS}, {**_EYES, **fresh_parts.EYES}, {**_MOUTHS, **fresh_parts.MOUTHS})


@dataclass(frozen=True)
class Figure:
    """The parts and inks of one figure."""

    body: str
    top: str
    eyes: str
    mouth: str
    body_ink: str
    mark_ink: str

    def sprite(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Colour (12, 12, 3) uint8 and coverage (12, 12) bool of this figure."""
        import torch  # names and parts are known without it

        color = torch.zeros(SPRITE_CELLS, SPRITE_CELLS, 3, dtype=torch.uint8)
        covered = torch.zeros(SPRITE_CELLS, SPRITE_CELLS, dtype=torch.bool)
        for row, line in enumerate(_ANY_BODY[self.body]):
            for column, cell in enumerate(line):
                if cell == "#":
                    _paint(color, covered, row, column, torch.tensor(_ANY_INK[self.body_ink], dtype=torch.uint8))
        for marks, name in zip(_ANY_MARKS, (self.top, self.eyes, self.mouth), strict=True):
            for row, column in marks[name]:
                _paint(color, covered, row, column, torch.tensor(_ANY_INK[self.mark_ink], dtype=torch.uint8))
        return color, covered


def _paint(color: torch.Tensor, covered: torch.Tensor, row: int, column: int, ink: torch.Tensor) -> None:
    for side in (column, SPRITE_CELLS - 1 - column):
        color[row, side] = ink
        covered[row, side] = True


FIGURES: dict[str, Figure] = {
    "vex": Figure("round", "ears", "dots", "smile", "navy", "gold"),
    "nim": Figure("ghost", "bare", "visor", "open", "rose", "black"),
    "oru": Figure("wide", "horns", "slits", "beard", "forest", "crimson"),
    "pip": Figure("drop", "antenna", "close", "line", "gold", "violet"),
    "tam": Figure("block", "ears", "slits", "open", "teal", "rust"),
    "zol": Figure("tall", "horns", "dots", "line", "crimson", "slate"),
}
"""Figures with a name of their own; the base never sees them, nor any other figure of the same body in the same two inks."""

TEST_IDENTITIES = ["vex", "nim", "oru", "pip"]
"""The benchmark reports on these."""
TUNING_IDENTITIES = ["tam", "zol"]
"""Settings are chosen on these."""
FRESH_FIGURES: dict[str, Figure] = {
    "bex": Figure("bell", "crest", "brows", "belt", "indigo", "orange"),
    "kru": Figure("bat", "tufts", "cyclops", "gap", "cocoa", "cyan"),
    "lom": Figure("mushroom", "bud", "low", "tongue", "coral", "plum"),
    "sif": Figure("hourglass", "knobs", "wide", "fangs", "olive", "wine"),
}
"""Figures of parts and inks of their own, on which nothing was ever chosen. They stand apart from `FIGURES`, among which likeness is
judged, so that scores of those stay as they were."""


def random_figure(generator: torch.Generator) -> Figure:
    """A figure that shares not both body and inks with a named one."""
    import torch

    def pick(options: list[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    reserved = {(figure.body, figure.body_ink, figure.mark_ink) for figure in FIGURES.values()}
    while True:
        body_ink, mark_ink = pick(list(INKS)), pick(list(INKS))
        body = pick(list(_BODIES))
        if body_ink != mark_ink and (body, body_ink, mark_ink) not in reserved:
            return Figure(body, pick(list(_TOPS)), pick(list(_EYES)), pick(list(_MOUTHS)), body_ink, mark_ink)
