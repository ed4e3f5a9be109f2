"""Photos of any kind as upright RGB plus subject mask, cut to size, and compared with one another.

Where a photo is transparent, neutral grey shows; its alpha channel is the subject mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image

from ..errors import InputError
from .pixels import NEUTRAL_GREY, cover, to_image, to_pixels
from .sizes import Size

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_HASH_DISTANCE = 2
MAX_THUMBNAIL_DIFFERENCE = 0.02
MAX_CELL_DIFFERENCE = 0.2
"""A small subject on a plain ground hardly moves the mean: single cells of its photos differ by .27 to .64, those of twins by up to .11."""
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture of each EXIF orientation upright."""


@dataclass(frozen=True)
class Photo:
    """Values are 8-bit as read from a file, or float in [0, 1].

    Attributes:
        picture: (H, W, 3).
        subject: (H, W) share of the subject; None where the whole photo is opaque.
    """

    picture: torch.Tensor
    subject: torch.Tensor | None

    def cover(self, size: Size) -> Photo:
        """Float, scaled to cover `size` = (height, width) with its aspect kept, then cropped at the centre; see `pixels.cover`."""
        subject = None if self.subject is None else cover(self.subject[None, ..., None], size)[0, ..., 0]
        return Photo(cover(self.picture[None], size)[0], subject)


@dataclass(frozen=True)
class Thumbnail:
    """hash: 64 bits, which cells of 8x8 are brighter than their mean; colours: (16, 16, 3) in [0, 1]."""

    hash: int
    colours: torch.Tensor

    def is_near(self, other: Thumbnail) -> bool:
        if (self.hash ^ other.hash).bit_count() > MAX_HASH_DISTANCE:
            return False
        differences = (self.colours - other.colours).abs()  # (16, 16, 3)
        return float(differences.mean((0, 1)).max()) < MAX_THUMBNAIL_DIFFERENCE and float(differences.max()) < MAX_CELL_DIFFERENCE


def open_photo(path: Path) -> Photo:
    """Decodes the whole file, turned upright; of an animation, the first picture.

    Raises:
        InputError: no such file, not a picture, damaged, cut off, or absurdly large.
    """
    if not path.is_file():
        raise InputError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: check the path of the photo.")
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            image.load()
            return _split_alpha(_to_8_bit(_turn_upright(image)))
    except Exception as problem:  # what a decoder raises on damaged bytes is anything
        reason = " ".join(str(problem).replace(str(path), path.name).split()).rstrip(".") or type(problem).__name__
        raise InputError(f"{path} cannot be read as a PNG, JPEG or WebP image ({reason}); export it again.") from problem


def make_thumbnail(photo: Photo) -> Thumbnail:
    picture = to_image(photo.picture)
    cells = numpy.asarray(picture.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=numpy.float64)
    bits = (cells > cells.mean()).flatten()
    small = numpy.array(picture.resize((16, 16), Image.Resampling.BOX), dtype=numpy.float32) / 255
    return Thumbnail(sum(1 << place for place, bit in enumerate(bits) if bit), torch.from_numpy(small))


def _turn_upright(image: Image.Image) -> Image.Image:
    """Reads the one tag that matters: `ImageOps.exif_transpose` writes all of them anew and fails on any that is mistyped."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # a tag that cannot be read says nothing, and the picture itself is whole
        return image
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits keeps its upper 8; converting it directly would clip everything bright to white."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = numpy.asarray(image).astype(numpy.float64)
    scale = 257 if image.mode.startswith("I;16") or (image.mode == "I" and values.max() > 255) else 1
    return Image.fromarray((values / scale).round().clip(0, 255).astype(numpy.uint8))


def _split_alpha(image: Image.Image) -> Photo:
    if not image.has_transparency_data:
        return Photo(to_pixels(image.convert("RGB")), None)
    image = image.convert("RGBA")
    subject = to_pixels(image.getchannel("A"))
    ground = Image.new("RGBA", image.size, (*NEUTRAL_GREY, 255))
    picture = to_pixels(Image.alpha_composite(ground, image).convert("RGB"))
    return Photo(picture, None if subject.min() == 255 else subject)
