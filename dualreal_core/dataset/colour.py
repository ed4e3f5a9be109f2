"""Colours of any screen, camera or press as the sRGB that models are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy
from PIL import Image

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode by the colour space of a profile."""
UNSEEN_DIFFERENCE = 1
"""Of 255: profiles that move colours by no more say sRGB in other words, and leave the pixels alone."""


@dataclass(frozen=True)
class Converted:
    """Attributes:
        picture: L or RGB.
        profile: name of the profile that it was converted from; None where its values are as they were.
        remark: what people should know, in words that follow the photo's name; mostly empty.
    """

    picture: Image.Image
    profile: str | None = None
    remark: str = ""


def to_srgb(picture: Image.Image, profile: bytes | None) -> Converted:
    """Converts by the profile; without one, or by one that is broken or of another kind of picture, the values count as sRGB.

    picture: L, RGB or CMYK, 8-bit.
    """
    plain = picture.convert("RGB") if picture.mode == "CMYK" else picture
    guessed = "is CMYK without a profile, and its colours are a guess; save it as sRGB" if picture.mode == "CMYK" else ""
    if not profile:
        return Converted(plain, None, guessed)
    try:
        return _convert(picture, profile)
    except Exception as problem:  # what a profile's bytes make the library raise is anything, and so is a Pillow built without it
        reason = " ".join(str(problem).split()).rstrip(".") or type(problem).__name__
        return Converted(plain, None, f"has a colour profile that cannot be used ({reason}): its values are taken as sRGB")


def _convert(picture: Image.Image, profile: bytes) -> Converted:
    from PIL import ImageCms  # not every Pillow has the library behind it

    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = MODES.get(space)
    if mode is None or (mode != picture.mode and (mode, picture.mode) != ("RGB", "L")):
        raise ValueError(f"it is for {space}, and the picture is {picture.mode}")
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode != "CMYK":
        colours = _sample_colours().convert(mode)
        moved = numpy.asarray(ImageCms.applyTransform(colours, transform)).astype(int) - numpy.asarray(colours.convert("RGB"))
        if numpy.abs(moved).max() <= UNSEEN_DIFFERENCE:
            return Converted(picture)
    name = " ".join(ImageCms.getProfileDescription(source).replace("\0", " ").split()) or "a nameless profile"
    return Converted(ImageCms.applyTransform(picture.convert(mode), transform), name)


def _sample_colours() -> Image.Image:
    """Every 17th level of each channel."""
    levels = numpy.arange(0, 256, 17, dtype=numpy.uint8)
    return Image.fromarray(numpy.stack(numpy.meshgrid(levels, levels, levels), axis=-1).reshape(16, -1, 3))
