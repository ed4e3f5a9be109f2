"""PNG, JPEG and WebP files as Pillow's pictures: of any size up to a limit, with any amount of text beside the pixels.

Pillow's own guards are for servers that strangers send pictures to: they refuse what phones and ComfyUI itself write.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile

from .camera_colour import camera_profile

MAX_PIXELS = 2**28
"""Refused above: 268 megapixels need over a GiB while they are decoded."""
MAX_KEPT_PIXELS = 2**26
"""Larger pictures are halved until they fit; no model trains at a fraction of that."""
MAX_PROFILE_BYTES = 2**24
PNG = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND"}
TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt"}
ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
MAX_ORIENTATION_BYTES = 2**16
GREY, COLOUR = 0, 2
"""PNG's types of pixels whose transparency is a single value."""
OTHER_KINDS = (
    (4, b"ftyphe", "a HEIC photo"), (4, b"ftypmif1", "a HEIF photo"), (4, b"ftypmsf1", "a HEIF photo"),
    (4, b"ftypavi", "an AVIF picture"), (4, b"ftyp", "a video"), (0, b"GIF8", "a GIF"), (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF or raw picture"), (0, b"MM\0*", "a TIFF or raw picture"), (0, b"8BPS", "a Photoshop file"),
    (0, b"\xff\x0a", "a JPEG XL picture"), (4, b"JXL ", "a JPEG XL picture"), (0, b"%PDF", "a PDF"), (0, b"<svg", "an SVG drawing"),
    (0, b"<", "a web page or XML"), (0, b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (0, b"\0\5\x16\7", "a note that macOS keeps on a file, without a picture"),
)  # fmt: skip
"""What else is found under the name of a photo, by the bytes at a place."""
_pillow = threading.Lock()


@dataclass(frozen=True)
class Decoded:
    """Attributes:
        image: loaded, as it lies in the file; its key colour, if any, fits its values.
        profile: ICC bytes: those of the file, or of the colours that its camera noted.
        size: (width, height) in the file; `image` may be smaller.
        is_animation: whether `image` is the first of several pictures.
    """

    image: Image.Image
    profile: bytes | None
    size: tuple[int, int]
    is_animation: bool


@contextmanager
def decoded(path: Path) -> Iterator[Decoded]:
    """The whole file; of an animation, the first picture.

    Raises:
        ValueError: it is of another kind or too large. Others: whatever a decoder raises on damaged bytes.
    """
    with path.open("rb") as file:
        head = file.read(64)
        file.seek(0)
        for place, mark, kind in OTHER_KINDS:
            if head[place:].startswith(mark):
                raise ValueError(f"it is {kind}")
        stream, profile, is_animation = _without_text(file) if head.startswith(PNG) else (file, None, False)
        with _open(stream) as image:
            image.filename, size = str(path), image.size
            if size[0] * size[1] > MAX_PIXELS:
                raise ValueError(f"{size[0]}x{size[1]} px are more than {MAX_PIXELS / 1e6:.0f} megapixels; make it smaller")
            factor = halvings(size)
            if factor > 1 and image.format in ("JPEG", "MPO"):
                image.draft(image.mode, (size[0] // factor, size[1] // factor))
            with _strict():
                image.load()
            _fit_key_colour(image, head)
            profile = profile or image.info.get("icc_profile") or camera_profile(image)
            yield Decoded(image, profile, size, is_animation or (image.format == "WEBP" and image.n_frames > 1))


def halvings(size: tuple[int, int]) -> int:
    """By how much a picture is divided so that what is kept of it fits: 1, 2, 4, 8."""
    factor = 1
    while size[0] * size[1] > MAX_KEPT_PIXELS * factor**2:
        factor *= 2
    return factor


def _open(stream: BinaryIO) -> Image.Image:
    """`Image.open` without its limit, which is for the whole process and is lifted only while the header is read."""
    with _pillow:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(stream, formats=("PNG", "JPEG", "WEBP"))
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _strict() -> Iterator[None]:
    """Many node packs have Pillow fill what is missing of a cut file with grey, for the whole process; not here."""
    with _pillow:
        tolerance, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerance


def _without_text(file: BinaryIO) -> tuple[BinaryIO, bytes | None, bool]:
    """A PNG's pixels and orientation, its ICC profile, and whether it moves; text, however long, is neither read nor unpacked."""
    end = file.seek(0, 2)
    file.seek(0)
    kept, profile, is_animation = BytesIO(), None, False
    kept.write(file.read(len(PNG)))
    while len(head := file.read(8)) == 8:
        length, kind = min(int.from_bytes(head[:4], "big") + 4, end - file.tell()), head[4:]
        after = file.tell() + length
        if kind in PIXEL_CHUNKS:
            kept.write(head + file.read(length))
        elif kind in TEXT_CHUNKS and length <= MAX_ORIENTATION_BYTES:
            content = file.read(length)
            if content.startswith(ORIENTATION_TEXTS):
                kept.write(head + content)
        elif kind == b"iCCP" and length <= MAX_PROFILE_BYTES:
            profile = _unpack_profile(file.read(length)[:-4])
        is_animation |= kind == b"fdAT"
        file.seek(after)
        if kind == b"IEND":
            break
    kept.seek(0)
    return kept, profile, is_animation


def _unpack_profile(chunk: bytes) -> bytes:
    """ICC bytes of the chunk: name, zero, method of packing, packed profile; what is broken comes out as no profile would."""
    packed = chunk.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(packed, MAX_PROFILE_BYTES) or b"empty"
    except zlib.error:
        return b"broken"


def _fit_key_colour(image: Image.Image, head: bytes) -> None:
    """The one value of a PNG that is transparent, from the depth of the file to that of Pillow's pixels."""
    key = image.info.get("transparency")
    if key is None or image.format != "PNG":
        return
    depth, kind = head[24:26]
    if kind == COLOUR and depth == 16:
        image.info["transparency"] = tuple(level >> 8 for level in key)
    elif kind == GREY and depth in (2, 4):
        image.info["transparency"] = key * 255 // (2**depth - 1)
    elif kind == GREY and depth == 1:
        image.info["transparency"] = 255 if key else 0
