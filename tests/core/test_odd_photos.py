"""Photos that are whole, however their files are made: any depth, transparency, amount of text or pixels; and files that are none."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path

import numpy
import pytest
from media import blocks, noise, png_chunk, png_file, save
from PIL import Image, ImageFile, PngImagePlugin

from dualreal_core.dataset import scan_identity, scan_motion
from dualreal_core.dataset.decoding import MAX_KEPT_PIXELS, MAX_PIXELS
from dualreal_core.dataset.photos import Photo, open_photo
from dualreal_core.errors import InputError

SIZE = (64, 64)
GREY, COLOUR = 0, 2
HALF = 32


def two_halves(depth: int, samples: int, left: int, right: int) -> bytes:
    """64 rows of 64 px, the left half of one value and the right half of another."""
    values = [left] * HALF * samples + [right] * HALF * samples
    bits = "".join(format(value, f"0{depth}b") for value in values)
    return (b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")) * 64


def assert_left_is_clear(photo: Photo, right: int) -> None:
    assert photo.subject[:, :HALF].max() == 0 and photo.subject[:, HALF:].min() == 255
    assert photo.picture[:, :HALF].unique().tolist() == [128] and photo.picture[:, HALF:].unique().tolist() == [right]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_may_be_transparent_at_any_depth(tmp_path, depth):
    most = 2**depth - 1
    for left, right, shown in ((most, 0, 0), (0, most, 255)):
        key = png_chunk(b"tRNS", struct.pack(">H", left))
        (tmp_path / "a.png").write_bytes(png_file(64, 64, depth, GREY, two_halves(depth, 1, left, right), key))
        assert_left_is_clear(open_photo(tmp_path / "a.png"), shown)


@pytest.mark.parametrize(("depth", "clear", "seen"), [(8, 0x12, 0), (16, 0x1234, 0), (16, 0xABCD, 0xFFFF)])
def test_one_colour_may_be_transparent_at_any_depth(tmp_path, depth, clear, seen):
    key = png_chunk(b"tRNS", struct.pack(">HHH", clear, clear, clear))
    (tmp_path / "a.png").write_bytes(png_file(64, 64, depth, COLOUR, two_halves(depth, 3, clear, seen), key))
    assert_left_is_clear(open_photo(tmp_path / "a.png"), seen >> (depth - 8))


def test_alpha_of_grey_of_palettes_and_of_16_bits(tmp_path):
    values = (b"\0" + struct.pack(">HH", 0x1234, 0) * HALF + struct.pack(">HH", 0x5678, 0xFFFF) * HALF) * 64
    (tmp_path / "a.png").write_bytes(png_file(64, 64, 16, 4, values))
    assert_left_is_clear(open_photo(tmp_path / "a.png"), 0x56)
    palette = Image.new("P", (64, 64))
    palette.putpalette([10, 20, 30, 200, 200, 200])
    palette.paste(1, (HALF, 0, 64, 64))
    palette.save(tmp_path / "b.png", transparency=bytes([0, 255]))
    assert_left_is_clear(open_photo(tmp_path / "b.png"), 200)


def test_png_with_megabytes_of_text_is_used(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "{}" * 2**20)
    info.add_text("prompt", "a" * (3 * 2**20), zip=True)
    info.add_itxt("notes", "b" * (2 * 2**20), zip=True)
    Image.fromarray(blocks(64, 64, 1)).save(tmp_path / "one.png", pnginfo=info)
    many = PngImagePlugin.PngInfo()
    for number in range(70):
        many.add_text(f"part {number}", "c" * (2**20 - 32))
    Image.fromarray(blocks(64, 64, 2)).save(tmp_path / "many.png", pnginfo=many)
    assert scan_identity(tmp_path, "a dog", SIZE).report.used == ("many.png", "one.png")
    assert numpy.array_equal(numpy.asarray(open_photo(tmp_path / "one.png").picture), blocks(64, 64, 1))


def test_text_behind_the_pixels_and_damaged_text_do_no_harm(tmp_path):
    text = png_chunk(b"zTXt", b"prompt\0\0no zlib")
    wrong_sum = png_chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0"
    content = png_file(64, 64, 8, GREY, two_halves(8, 1, 5, 200), text, wrong_sum)
    (tmp_path / "a.png").write_bytes(content[:-12] + png_chunk(b"tEXt", b"late\0" + b"x" * 2**21) + content[-12:])
    assert open_photo(tmp_path / "a.png").picture[0, 63].tolist() == [200] * 3


def test_orientation_of_text_is_kept_beside_megabytes_of_it(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 2**21)
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(blocks(96, 64, 1)).save(tmp_path / "a.png", pnginfo=info)
    assert open_photo(tmp_path / "a.png").picture.shape == (64, 96, 3)


def test_photos_of_200_megapixels_are_used(tmp_path):
    width, height = 16320, 12240
    Image.new("L", (width, height), 77).save(tmp_path / "a.jpg")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo = open_photo(tmp_path / "a.jpg")
    assert photo.picture.shape == (height // 2, width // 2, 3) and photo.picture[5, 5].tolist() == [77] * 3
    assert photo.remarks == (f"is {width}x{height} and is read at {width // 2}x{height // 2}",)
    assert limit == Image.MAX_IMAGE_PIXELS, "the setting is everybody's"


def test_no_photo_keeps_more_pixels_than_memory_is_meant_for(tmp_path, monkeypatch):
    monkeypatch.setattr("dualreal_core.dataset.decoding.MAX_KEPT_PIXELS", 64 * 64)
    colours = numpy.full((128, 192, 4), 255, numpy.uint8)
    colours[:, :96] = (250, 0, 0, 0)
    colours[:, 96:, :3] = 40
    for mode, subject in {"RGBA": True, "RGB": False, "L": False, "P": False, "CMYK": False}.items():
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.fromarray(colours if mode == "RGBA" else colours[..., :3]).convert(mode).save(tmp_path / f"{mode}.{suffix}")
        photo = open_photo(tmp_path / f"{mode}.{suffix}")
        assert photo.picture.shape[0] * photo.picture.shape[1] <= 64 * 64 and (photo.subject is not None) == subject
        assert abs(int(photo.picture[-1, -1, 0]) - 40) <= 2
    deep = Image.fromarray(numpy.full((128, 192), 40 * 257, numpy.uint16))
    deep.save(tmp_path / "deep.png")
    assert open_photo(tmp_path / "deep.png").picture.shape == (32, 48, 3)


@pytest.mark.parametrize("head", ["png", "jpg"])
def test_a_decompression_bomb_is_refused(tmp_path, head):
    side = 60000
    if head == "png":
        content = png_file(side, side, 8, COLOUR, b"\0" * 100)
    else:
        frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
        content = b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\0" * 100
    (tmp_path / f"a.{head}").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.{head} .*60000x60000 px are more than 268 megapixels; make it smaller"):
        open_photo(tmp_path / f"a.{head}")
    assert MAX_KEPT_PIXELS < MAX_PIXELS


def test_a_cut_file_is_refused_though_other_node_packs_have_pillow_fill_it_up(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("a.jpg", "b.png"):
        path = tmp_path / name
        Image.fromarray(numpy.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=numpy.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=rf"{name} cannot be read"):
            open_photo(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic", "a HEIC photo"),
        (b"\0\0\0\x18ftypavif", "an AVIF picture"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"GIF89a", "a GIF"),
        (b"<!DOCTYPE html><html>", "a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer: fetch the file itself"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a note that macOS keeps on a file, without a picture"),
    ],
)
def test_other_files_under_the_name_of_a_photo_are_called_what_they_are(tmp_path, content, kind):
    (tmp_path / "a.jpg").write_bytes(content + bytes(100))
    with pytest.raises(InputError, match=rf"a\.jpg cannot be read as a PNG, JPEG or WebP image \(it is {kind}\)"):
        open_photo(tmp_path / "a.jpg")


def odd_paths(folder: Path, suffix: str) -> dict[str, str]:
    """Names that no photo or clip hides behind, with the reason."""
    os.mkfifo(folder / f"b_pipe{suffix}")
    (folder / f"c_device{suffix}").symlink_to("/dev/zero")
    (folder / f"d_gone{suffix}").symlink_to("nowhere")
    (folder / f"e_circle{suffix}").symlink_to(f"e_circle{suffix}")
    (folder / f"f_empty{suffix}").touch()
    (folder / f"g_empty{suffix}").touch()
    return {
        f"b_pipe{suffix}": "is a pipe, not a file",
        f"c_device{suffix}": "is a device, not a file",
        f"d_gone{suffix}": "is a link that leads nowhere",
        f"e_circle{suffix}": "is a link that leads nowhere",
        f"f_empty{suffix}": "is empty: the file holds no bytes",
        f"g_empty{suffix}": "is empty: the file holds no bytes",
    }


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_pipes_devices_and_links_are_named_and_end_no_scan(tmp_path):
    expected = odd_paths(tmp_path, ".png")
    Image.fromarray(blocks(80, 80, 1)).save(tmp_path / "a.png")
    report = scan_identity(tmp_path, "a dog", SIZE).report
    assert report.used == ("a.png",) and report.skipped == {name: f"unreadable: it {reason}" for name, reason in expected.items()}
    for name, reason in expected.items():
        with pytest.raises(InputError, match=f"{name} {reason}"):
            open_photo(tmp_path / name)
    clips = tmp_path / "clips"
    clips.mkdir()
    odd_paths(clips, ".mp4")
    with pytest.raises(InputError, match=r"none of the 6 files can be used \(b_pipe\.mp4: unreadable: it is a pipe, not a file\)"):
        scan_motion(clips, "x", SIZE, 5, 8)


def test_an_animation_gives_its_first_picture_and_is_named(tmp_path):
    first, second = (Image.fromarray(blocks(64, 64, seed)) for seed in (1, 2))
    for name in ("a.png", "b.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
        photo = open_photo(tmp_path / name)
        assert photo.remarks == ("is an animation, of which the first picture is used",)
        assert numpy.array_equal(numpy.asarray(photo.picture), blocks(64, 64, 1))


def test_a_photo_that_may_not_be_read_is_called_so(tmp_path, monkeypatch):
    save(tmp_path / "a.png", noise(80, 80, 1))
    save(tmp_path / "b.jfif", noise(80, 80, 2), format="JPEG")
    plain = Path.open

    def guarded(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "a.png":
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", guarded)
    report = scan_identity(tmp_path, "a dog", SIZE).report
    assert report.used == ("b.jfif",) and report.skipped == {"a.png": "unreadable: Permission denied"}
    with pytest.raises(InputError, match=r"a\.png cannot be opened \(Permission denied\); check its permissions"):
        open_photo(tmp_path / "a.png")


def test_a_twin_of_a_broken_photo_is_broken_too(tmp_path):
    save(tmp_path / "a.png", noise(80, 80, 1))
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes()[:4000])
    skipped = scan_identity(tmp_path, "a dog", SIZE).report.skipped
    assert skipped.keys() == {"b.png", "c.png"} and all(reason.startswith("unreadable: ") for reason in skipped.values())
