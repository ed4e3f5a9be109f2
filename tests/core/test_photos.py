"""Photos of odd files: what turns them, what tells them apart, and what is wrong with one must not cost the others."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw, ImageOps, PngImagePlugin

from dualreal_core.dataset import scan_identity
from dualreal_core.dataset.photos import open_photo
from dualreal_core.errors import InputError

SIZE = (64, 64)
SHORT, ASCII, RATIONAL, UNDEFINED = 3, 2, 5, 7
ORIENTATION, MAKE, X_RESOLUTION, SOFTWARE = 0x0112, 0x010F, 0x011A, 0x0131
TURNED = (ORIENTATION, SHORT, 1, struct.pack("<H", 6))


def blocks(height: int, width: int, seed: int) -> numpy.ndarray:
    """A board of random colours with cells of 16 px."""
    colours = numpy.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=numpy.uint8)
    return numpy.kron(colours, numpy.ones((16, 16, 1), numpy.uint8))[:height, :width]


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of these (tag, type, count, value), in the order of the tags, whatever their types should be."""
    table, values, place = struct.pack("<H", len(entries)), b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        held = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", place + len(values))
        table += struct.pack("<HHI", tag, kind, count) + held
        values += value if len(value) > 4 else b""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + table + b"\0\0\0\0" + values


@pytest.mark.parametrize(
    "entries",
    [
        [(MAKE, RATIONAL, 1, struct.pack("<II", 1, 2)), TURNED],
        [TURNED, (X_RESOLUTION, ASCII, 3, b"72\0")],
        [TURNED, (SOFTWARE, UNDEFINED, 6, b"abcdef")],
    ],
    ids=["maker", "resolution", "software"],
)
def test_a_mistyped_tag_does_not_end_the_scan(tmp_path, entries):
    Image.fromarray(blocks(96, 80, 1)).save(tmp_path / "odd.jpg", exif=exif(*entries))
    Image.fromarray(blocks(96, 80, 2)).save(tmp_path / "plain.jpg")
    assert scan_identity(tmp_path, "a dog", SIZE).report.used == ("odd.jpg", "plain.jpg")
    assert open_photo(tmp_path / "odd.jpg").picture.shape == (80, 96, 3)


def test_an_orientation_that_cannot_be_read_counts_as_upright(tmp_path):
    for name, entry in {"words": (ORIENTATION, ASCII, 2, b"6\0"), "unknown": (ORIENTATION, SHORT, 1, struct.pack("<H", 99))}.items():
        Image.fromarray(blocks(96, 80, 1)).save(tmp_path / f"{name}.jpg", exif=exif(entry))
        assert open_photo(tmp_path / f"{name}.jpg").picture.shape == (96, 80, 3)
    damaged = PngImagePlugin.PngInfo()
    damaged.add_text("Raw profile type exif", "\nexif\n 8\nno hex")
    Image.fromarray(blocks(96, 80, 1)).save(tmp_path / "damaged.png", pnginfo=damaged)
    assert open_photo(tmp_path / "damaged.png").picture.shape == (96, 80, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path, orientation):
    Image.fromarray(blocks(96, 80, 1)).save(tmp_path / "a.png", exif=exif((ORIENTATION, SHORT, 1, struct.pack("<H", orientation))))
    with Image.open(tmp_path / "a.png") as image:
        expected = numpy.asarray(ImageOps.exif_transpose(image))
    assert numpy.array_equal(numpy.asarray(open_photo(tmp_path / "a.png").picture), expected)


@pytest.mark.parametrize("error", [AttributeError("'tuple' has no encode"), TypeError("an integer is required"), MemoryError()])
def test_whatever_a_decoder_raises_skips_one_file(tmp_path, monkeypatch, error):
    for seed in range(2):
        Image.fromarray(blocks(96, 80, seed)).save(tmp_path / f"{seed}.png")
    load = PngImagePlugin.PngImageFile.load

    def fail(self: PngImagePlugin.PngImageFile) -> object:
        if Path(self.filename).name == "0.png":
            raise error
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    report = scan_identity(tmp_path, "a dog", SIZE).report
    assert report.used == ("1.png",)
    reason = str(error) or "MemoryError"
    assert report.skipped.keys() == {"0.png"} and f"({reason}); export it again" in report.skipped["0.png"]
    with pytest.raises(InputError, match=r"0\.png cannot be read as a PNG"):
        open_photo(tmp_path / "0.png")


def product_photo(seed: int, share: float) -> Image.Image:
    """A round subject that fills this share of a white picture's side."""
    side = int(512 * share)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse([0, 0, side, side], fill=255)
    photo = Image.new("RGB", (512, 512), "white")
    photo.paste(Image.fromarray(blocks(64, 64, seed) // 2).resize((side, side)), ((512 - side) // 2,) * 2, mask)
    return photo


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_different_photos_of_a_small_subject_on_a_plain_ground_are_kept(tmp_path, share):
    for seed in range(4):
        product_photo(seed, share).save(tmp_path / f"{seed}.png")
    report = scan_identity(tmp_path, "a dog", SIZE).report
    assert len(report.used) == 4, report.skipped


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_twins_of_a_small_subject_on_a_plain_ground_are_found(tmp_path, share):
    photo = product_photo(0, share)
    photo.save(tmp_path / "a.png")
    photo.save(tmp_path / "b_strongly_packed.jpg", quality=60)
    photo.resize((256, 256)).save(tmp_path / "c_half_as_large.png")
    photo.crop((5, 5, 512, 512)).save(tmp_path / "d_cropped.png")
    report = scan_identity(tmp_path, "a dog", SIZE).report
    assert report.used == ("a.png",)
    assert set(report.skipped.values()) == {"near-identical to a.png"}
