"""The look all pictures share: colours, sizes, and text set with the font that Pillow brings."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
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
TRACKING = 0.5
"""Extra space between bold letters, in pixels."""
SCORE_GAP = 5
"""Extra space after a score, in pixels."""
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


def text_width(text: str, size: int, is_bold: bool = False) -> float:
    """Width of a line, in pixels, with the gaps after its scores."""
    plain = printable(text)
    num_scores = sum(match.group(1) is not None for match in _PHRASE.finditer(plain))
    return font(size).getlength(plain) + SCORE_GAP * num_scores + (TRACKING * len(plain) if is_bold else 0.0)


def line_height(size: int) -> int:
    """Distance of two lines, in pixels."""
    return round(size * LINE_HEIGHT)


def draw_text(canvas: Image.Image, position: tuple[float, float], text: str, size: int, colour: Colour = INK, anchor: str = "la") -> None:
    """Sets one line; `anchor` as Pillow's."""
    ImageDraw.Draw(canvas).text(position, printable(text), fill=colour, font=font(size), anchor=anchor)


def draw_bold(canvas: Image.Image, position: tuple[float, float], text: str, size: int, colour: Colour = INK, anchor: str = "la") -> None:
    """Sets one line that starts at `position`. The font has one weight: each letter is set twice.

    Letters begin on whole pixels, so that all get the same weight.
    """
    draw, plain = ImageDraw.Draw(canvas), printable(text)
    for index, letter in enumerate(plain):
        left = position[0] + font(size).getlength(plain[: index + 1]) - font(size).getlength(letter) + TRACKING * index
        for offset in (0.0, 0.6):
            draw.text((round(left) + offset, position[1]), letter, fill=colour, font=font(size), anchor=anchor)


def wrap(text: str, size: int, width: float, is_bold: bool = False) -> list[str]:
    """Lines no wider than `width`. 'identity 0.93' is not parted; a phrase wider than a line is."""
    lines: list[str] = []
    for match in _PHRASE.finditer(printable(text)):
        phrase = match.group()
        if lines and text_width(f"{lines[-1]} {phrase}", size, is_bold) <= width:
            lines[-1] += " " + phrase
            continue
        while text_width(phrase, size, is_bold) > width and len(phrase) > 1:
            fitting = next((n for n in range(len(phrase) - 1, 1, -1) if text_width(phrase[:n], size, is_bold) <= width), 1)
            lines.append(phrase[:fitting])
            phrase = phrase[fitting:]
        lines.append(phrase)
    return lines


def draw_scores(canvas: Image.Image, position: tuple[float, float], line: str, size: int) -> None:
    """Sets one line in quiet ink, with 'identity 0.93' and 'motion 0.88' in the colours of their roles."""
    left = position[0]
    for match in _PHRASE.finditer(line):
        phrase = match.group()
        role = match.group(1)
        draw_text(canvas, (left, position[1]), phrase, size, ROLE_COLOURS[role] if role else QUIET)
        left += text_width(phrase, size) + font(size).getlength(" ")


def wrap_labels(labels: Sequence[tuple[str, str]], widths: tuple[int, int]) -> tuple[int, list[tuple[list[str], list[str]]]]:
    """Labels of rows, each a text and a smaller one below: the width they get, between two bounds, and their lines within it."""
    natural = max(max(text_width(label, TEXT_SIZE, is_bold=True), text_width(sublabel, SMALL_SIZE)) for label, sublabel in labels)
    width = min(max(math.ceil(natural) + 1, widths[0]), widths[1])
    return width, [(wrap(label, TEXT_SIZE, width, is_bold=True), wrap(sublabel, SMALL_SIZE, width)) for label, sublabel in labels]


def label_height(label: list[str], sublabel: list[str], gap: int = 0) -> int:
    """Height `draw_label` takes, `gap` between both parts included."""
    return len(label) * line_height(TEXT_SIZE) + (gap if label and sublabel else 0) + len(sublabel) * line_height(SMALL_SIZE)


def draw_label(canvas: Image.Image, top: int, height: int, label: list[str], sublabel: list[str], gap: int = 0) -> None:
    """Sets the lines of a label at the left margin, amid a row of such a top and height."""
    top += (height - label_height(label, sublabel, gap)) // 2
    for line in label:
        draw_bold(canvas, (MARGIN, top), line, TEXT_SIZE)
        top += line_height(TEXT_SIZE)
    top += gap if label and sublabel else 0
    for line in sublabel:
        draw_scores(canvas, (MARGIN, top), line, SMALL_SIZE)
        top += line_height(SMALL_SIZE)


def draw_title(canvas: Image.Image, title: str, top: int = MARGIN) -> int:
    """Sets the title across the picture, smaller or on several lines where it is long; returns where it ends."""
    size = _title_size(title, canvas.width)
    for line in wrap(title, size, canvas.width - 2 * MARGIN, is_bold=True):
        draw_bold(canvas, (MARGIN, top), line, size)
        top += line_height(size)
    return top


def title_height(title: str, width: int) -> int:
    """Height `draw_title` takes in a picture of a width."""
    size = _title_size(title, width)
    return len(wrap(title, size, width - 2 * MARGIN, is_bold=True)) * line_height(size)


def _title_size(title: str, width: int) -> int:
    sizes = range(TITLE_SIZE, TEXT_SIZE, -1)
    return next((size for size in sizes if text_width(title, size, is_bold=True) <= width - 2 * MARGIN), sizes[-1])
