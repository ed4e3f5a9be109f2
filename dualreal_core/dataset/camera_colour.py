"""Adobe RGB as many cameras note it: by two letters and a digit in the EXIF data, without a profile."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image

INTEROP_INDEX, ADOBE_RGB_INDEX = 1, "R03"
COLOUR_SPACE, ADOBE_RGB_SPACE = 0xA001, 2
PRIMARIES = {b"r": (0.60974, 0.31111, 0.01947), b"g": (0.20528, 0.62567, 0.06087), b"b": (0.14919, 0.06322, 0.74457)}
"""XYZ of red, green and blue under the white of profiles."""
WHITE = (0.9642, 1.0, 0.82491)
GAMMA = 563 / 256
NAME = b"Adobe RGB\0"


def camera_profile(image: Image.Image) -> bytes | None:
    """ICC profile of Adobe RGB where the EXIF data say so; None otherwise, and where they cannot be read."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(COLOUR_SPACE)
        index = str(exif.get_ifd(ExifTags.IFD.Interop).get(INTEROP_INDEX, "")).strip(" \0")
    except Exception:  # damaged tags say nothing
        return None
    return _adobe_rgb() if index == ADOBE_RGB_INDEX or space == ADOBE_RGB_SPACE else None


def _adobe_rgb() -> bytes:
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(GAMMA * 256))
    tags = {b"desc": b"desc" + struct.pack(">II", 0, len(NAME)) + NAME + bytes(78), b"wtpt": b"XYZ " + bytes(4) + _fixed(WHITE)}
    for letter, colour in PRIMARIES.items():
        tags |= {letter + b"XYZ": b"XYZ " + bytes(4) + _fixed(colour), letter + b"TRC": curve}
    table, content, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for kind, value in tags.items():
        table += struct.pack(">4sII", kind, place + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", place + len(content), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    return (header + bytes(12) + b"acsp" + bytes(28) + _fixed(WHITE)).ljust(128, b"\0") + table + content


def _fixed(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
