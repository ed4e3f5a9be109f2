"""Photos of any kind as upright RGB plus subject mask, cut to size, and compared with one another.

Where a photo is transparent, neutral grey shows; its alpha channel is the subject mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..files.regular import printable, unreadable_reason
from .colour import to_srgb
from .decoding import Decoded, decoded, halvings
from .pixels import NEUTRAL_GREY, cover, to_image, to_pixels
from .sizes import Size

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp")
MAX_HASH_DISTANCE = 2
MAX_THUMBNAIL_DIFFERENCE = 0.02
MAX_CELL_DIFFERENCE = 0.2
"""A small subject on a plain ground hardly moves the mean: single cells of its photos differ by .27 to .64, those of twins by up to .11."""
ORIENTATION = 0x0112
ROWS_AT_ONCE = 256
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
        profile: name of the colour profile that it was converted to sRGB from; None where its values are those of the file.
        remarks: what people should know, in words that follow the photo's name.
    """

    picture: torch.Tensor
    subject: torch.Tensor | None
    profile: str | None = None
    remarks: tuple[str, ...] = ()

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
    """Decodes the whole file, in sRGB, turned upright; of an animation, the first picture.

    Raises:
        InputError: no such file, not a picture, damaged, cut off, or absurdly large.
    """
    reason = unreadable_reason(path)
    if reason is not None:
        raise InputError(f"{printable(str(path))} {reason}; check the path of the photo, or copy it again.")
    try:
        with decoded(path) as found:
            return _photo(found)
    except PermissionError as problem:
        raise InputError(f"{printable(str(path))} cannot be opened ({problem.strerror}); check its permissions.") from problem
    except Exception as problem:  # what a decoder raises on damaged bytes is anything
        reason = " ".join(str(problem).replace(str(path), path.name).split()).rstrip(".") or type(problem).__name__
        if isinstance(problem, UnidentifiedImageError):
            reason = "its bytes are none of the three"
        shown = printable(str(path))
        raise InputError(f"{shown} cannot be read as a PNG, JPEG or WebP image ({printable(reason)}); export it again.") from problem


def make_thumbnail(photo: Photo) -> Thumbnail:
    picture = to_image(photo.picture)
    cells = numpy.asarray(picture.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=numpy.float64)
    bits = (cells > cells.mean()).flatten()
    small = numpy.array(picture.resize((16, 16), Image.Resampling.BOX), dtype=numpy.float32) / 255
    return Thumbnail(sum(1 << place for place, bit in enumerate(bits) if bit), torch.from_numpy(small))


def _photo(found: Decoded) -> Photo:
    turn, factor, image = _turn(found.image), halvings(found.image.size), _plain(found.image)
    image = image.reduce(factor) if factor > 1 else image
    subject = image.getchannel("A") if "A" in image.getbands() else None
    colours = image if subject is None else image.convert("L" if image.mode == "LA" else "RGB")
    converted = to_srgb(colours, found.profile)
    remarks = [converted.remark] if converted.remark else []
    if found.is_animation:
        remarks.append("is an animation, of which the first picture is used")
    if image.size != found.size:
        remarks.append("is {}x{} and is read at {}x{}".format(*found.size, *image.size))
    picture = converted.picture.convert("RGB")
    if subject is not None:
        picture = Image.composite(picture, Image.new("RGB", picture.size, NEUTRAL_GREY), subject)
    if turn is not None:
        picture, subject = picture.transpose(turn), None if subject is None else subject.transpose(turn)
    share = None if subject is None or subject.getextrema()[0] == 255 else to_pixels(subject)
    return Photo(to_pixels(picture), share, converted.profile, tuple(remarks))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Reads the one tag that matters: `ImageOps.exif_transpose` writes all of them anew and fails on any that is mistyped."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # a tag that cannot be read says nothing, and the picture itself is whole
        return None


def _plain(image: Image.Image) -> Image.Image:
    """8-bit L, RGB or CMYK, or with the alpha channel that the file has in one form or another LA or RGBA."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _upper_bits(image)
    if image.mode in ("LA", "RGBA") or (image.mode in ("L", "RGB", "CMYK") and not image.has_transparency_data):
        return image
    modes = ("LA", "L") if image.mode in ("1", "L") else ("RGBA", "RGB")
    return image.convert(modes[0] if image.has_transparency_data else modes[1])


def _upper_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits keeps its upper 8; Pillow would clip everything bright to white."""
    values, key = numpy.asarray(image), image.info.get("transparency")
    scale = 257 if image.mode.startswith("I;16") or (image.mode == "I" and values.max() > 255) else 1
    grey = numpy.empty(values.shape, numpy.uint8)
    for top in range(0, len(values), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        grey[rows] = (values[rows] / scale).round().clip(0, 255)
    plain = Image.fromarray(grey)
    if isinstance(key, int):
        plain.putalpha(Image.fromarray(numpy.where(values == key, 0, 255).astype(numpy.uint8)))
    return plain
