"""Transparent pictures: neutral grey shows through, and alpha is the subject, of clips as of photos."""

from __future__ import annotations

import numpy

NEUTRAL_GREY = (128, 128, 128)
ALPHA_FORMATS = ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "pal8", "ayuv", "vuya")
"""How the names of pixel formats with alpha begin."""


def has_alpha(pixel_format: str) -> bool:
    """Whether pictures of this format may be transparent, by ffmpeg's name."""
    return pixel_format.startswith(ALPHA_FORMATS)


def over_grey(values: numpy.ndarray, is_premultiplied: bool = False) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(..., 4) of 8 or 16 bits -> picture (..., 3) and subject (...), both uint8."""
    shares = values.astype(numpy.float32) / numpy.iinfo(values.dtype).max
    picture, alpha = shares[..., :3], shares[..., 3:]
    picture = (picture if is_premultiplied else picture * alpha) * 255 + numpy.array(NEUTRAL_GREY, dtype=numpy.float32) * (1 - alpha)
    return picture.round().clip(0, 255).astype(numpy.uint8), (alpha[..., 0] * 255).round().astype(numpy.uint8)
