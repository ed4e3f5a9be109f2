"""The look all pictures share: colours, sizes, and text set with the font that Pillow brings."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

BACKGROUND: Colour = (255, 255, 255)
INK: Colour = (32, 36, 44)
QUIET: Colour = (104, 112, 124)
RULE: Colour = (228, 231, 236)
PANEL: Colour = (246, 247, 249)
# Blue and vermilion of Okabe and Ito: told apart with every kind of colour blindness, and of unlike lightness.
ROLE_COLOURS: dict[str, Colour] = {"identity": (0, 114, 178), "motion": (213, 94, 0)}

MARGIN = 24
TITLE_SIZE = 20
TEXT_SIZE = 14
SMALL_SIZE = 12
LINE_HEIGHT = 1.35
OVERSAMPLING = 3
"""Pillow draws shapes with hard edges: they are drawn larger and reduced. Text is drawn at its size."""

_STAND_INS = str.maketrans({"–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "×": "x", "→": ">"})
_PHRASE = re.compile(r"(identity|motion):?\s+[-+]?[\d.]+%?|\S+")


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    return ImageFont.load_default(size=size)


def printable(text: str) -> str:
    """The text in letters the font has: accents dropped, others than ASCII as '?', whitespace as single blanks."""
    plain = unicodedata.normalize("NFKD", text.translate(_STAND_INS))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return " ".join(plain.encode("ascii", "replace").decode("ascii").split())


def text_width(text: str, size: int) -> float:
    """Width of a line, in pixels."""
    return font(size).getlength(printable(text))


def line_height(size: int) -> int:
    """Distance of two lines, in pixels."""
    return round(size * LINE_HEIGHT)


def draw_text(
    canvas: Image.Image, position: tuple[float, float], text: str, size: int, colour: Colour = INK, anchor: str = "la", is_bold: bool = False
) -> None:
    """Sets one line; `anchor` as Pillow's. The font has one weight: bold is the line set twice, half a pixel apart."""
    draw = ImageDraw.Draw(canvas)
    for offset in (0.0, 0.6) if is_bold else (0.0,):
        draw.text((position[0] + offset, position[1]), printable(text), fill=colour, font=font(size), anchor=anchor)


def fit_size(text: str, size: int, width: float, smallest: int = SMALL_SIZE) -> int:
    """The largest size up to `size` at which a line is no wider than `width`."""
    return next((smaller for smaller in range(size, smallest, -1) if text_width(text, smaller) <= width), smallest)


def wrap(text: str, size: int, width: float) -> list[str]:
    """Lines no wider than `width`. 'identity 0.93' is not parted; a phrase wider than a line is."""
    lines: list[str] = []
    for match in _PHRASE.finditer(printable(text)):
        phrase = match.group()
        if lines and text_width(f"{lines[-1]}  {phrase}", size) <= width:
            lines[-1] += ("  " if _is_score(phrase) else " ") + phrase
            continue
        while text_width(phrase, size) > width and len(phrase) > 1:
            fitting = next((n for n in range(len(phrase) - 1, 1, -1) if text_width(phrase[:n], size) <= width), 1)
            lines.append(phrase[:fitting])
            phrase = phrase[fitting:]
        lines.append(phrase)
    return lines


def draw_scores(canvas: Image.Image, position: tuple[float, float], line: str, size: int) -> None:
    """Sets one line in quiet ink, with 'identity 0.93' and 'motion 0.88' in the colours of their roles."""
    left = position[0]
    for match in _PHRASE.finditer(line):
        phrase = match.group()
        colour = ROLE_COLOURS[match.group(1)] if _is_score(phrase) else QUIET
        draw_text(canvas, (left, position[1]), phrase, size, colour)
        left += text_width(phrase, size) + text_width("n", size) * 0.9


def _is_score(phrase: str) -> bool:
    return " " in phrase


def draw_title(canvas: Image.Image, title: str, top: int = MARGIN) -> int:
    """Sets the title across the picture, smaller or on several lines where it is long; returns where it ends."""
    width = canvas.width - 2 * MARGIN
    size = fit_size(title, TITLE_SIZE, width, smallest=TEXT_SIZE + 1)
    for line in wrap(title, size, width):
        draw_text(canvas, (MARGIN, top), line, size, is_bold=True)
        top += line_height(size)
    return top


def title_height(title: str, width: int) -> int:
    """Height `draw_title` takes in a picture of a width."""
    size = fit_size(title, TITLE_SIZE, width - 2 * MARGIN, smallest=TEXT_SIZE + 1)
    return len(wrap(title, size, width - 2 * MARGIN)) * line_height(size)
