"""Scanning photos, their captions, masks and crops."""

from __future__ import annotations

import numpy
import pytest
import torch
from media import SIZE, blocks, noise, reasons, save
from PIL import Image

from dualreal_core.dataset import CropSettings, scan_identity, scan_motion
from dualreal_core.dataset.photos import open_photo
from dualreal_core.errors import InputError


@pytest.mark.parametrize("scan", [lambda f: scan_identity(f, "x", SIZE), lambda f: scan_motion(f, "x", SIZE, 5, 8)])
def test_missing_empty_and_wrong_folders(tmp_path, scan):
    with pytest.raises(InputError, match="does not exist; check"):
        scan(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no (images|videos); add"):
        scan(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give the folder"):
        scan(tmp_path / "file")


def test_identity_reasons(tmp_path):
    save(tmp_path / "a.png", blocks(80, 120, 1))
    save(tmp_path / "b.jpg", blocks(80, 120, 2))
    save(tmp_path / "c.webp", blocks(80, 120, 3))
    (tmp_path / "d_copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    save(tmp_path / "e_near.jpg", blocks(80, 120, 1), quality=90)
    save(tmp_path / "f_small.png", blocks(5, 5, 4))
    (tmp_path / "g_words.png").write_text("not a picture")
    cut = save(tmp_path / "h_cut.png", noise(80, 120, 5))
    cut.write_bytes(cut.read_bytes()[:4000])
    (tmp_path / "i_model.safetensors").write_bytes(b"x")
    save(tmp_path / "j_gone.png", numpy.zeros((80, 120, 4), numpy.uint8))
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    manifest = scan_identity(tmp_path, "a sks dog", SIZE)
    assert manifest.report.used == ("a.png", "b.jpg", "c.webp") and len(manifest.items) == 3
    expected = {
        "d_copy.png": "exact duplicate of a.png",
        "e_near.jpg": "near-identical to a.png",
        "f_small.png": "too small: 5x5 px, and the shorter side needs 16 px",
        "g_words.png": "unreadable: ",
        "h_cut.png": "unreadable: ",
        "i_model.safetensors": "unsupported: .safetensors",
        "j_gone.png": "empty: ",
    }
    found = reasons(manifest)
    assert found.keys() == expected.keys()
    assert all(found[file].startswith(reason) for file, reason in expected.items()), found
    lines = manifest.report.lines()
    assert lines[0] == "identity: 3 of 10 files used as photos, 3 training samples"
    assert "skipped d_copy.png: exact duplicate of a.png" in lines


def test_folders_beside_the_photos_are_named(tmp_path):
    save(tmp_path / "a.png", blocks(80, 120, 1))
    for name in ("images", "videos", ".cache"):
        (tmp_path / name).mkdir()
    assert scan_identity(tmp_path, "x", SIZE).report.notes == ()
    for name in ("more", "best"):
        (tmp_path / name).mkdir()
    assert scan_identity(tmp_path, "x", SIZE).report.notes == ("not looked into: the folders best, more",)


@pytest.mark.parametrize(("size", "passes"), [((32, 32), True), ((480, 720), False)])
def test_smallest_side_follows_the_training_size(tmp_path, size, passes):
    save(tmp_path / "a.png", blocks(40, 48, 1))
    if passes:
        assert len(scan_identity(tmp_path, "x", size).items) == 1
    else:
        with pytest.raises(InputError, match=r"the only file cannot be used \(a\.png: too small: 48x40") as caught:
            scan_identity(tmp_path, "x", size)
        assert "add PNG, JPEG or WebP photos of at least 64 px" in str(caught.value)


def test_nothing_usable_names_count_reason_and_cure(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_text(f"not a picture {name}")
    with pytest.raises(InputError, match=r"none of the 2 files can be used \(a\.png: unreadable.*; add PNG"):
        scan_identity(tmp_path, "x", SIZE)


def test_enlargement_is_noted(tmp_path):
    save(tmp_path / "a.png", blocks(32, 48, 1))
    assert "a.png is 48x32 and is enlarged 2.0 times" in scan_identity(tmp_path, "x", SIZE).report.notes


def test_a_photo_that_the_crop_halves_is_noted(tmp_path):
    save(tmp_path / "a.png", blocks(8 * SIZE[0], 4 * SIZE[1], 1))
    (note,) = [note for note in scan_identity(tmp_path, "x", SIZE).report.notes if "loses" in note]
    assert note.startswith(f"a.png is {4 * SIZE[1]}x{8 * SIZE[0]} and loses") and note.endswith("of its height to the crop")


def test_captions_beside_then_list_then_prompt(tmp_path):
    for seed, name in enumerate(["1.png", "images/2.png", "3.png"]):
        save(tmp_path / name, blocks(80, 120, seed))
    (tmp_path / "1.txt").write_text("beside\n", encoding="utf-8-sig")
    (tmp_path / "videos.txt").write_text("1.png\nimages/2.png\nimages/gone.png\n")
    (tmp_path / "prompts.txt").write_text("listed 1\nlisted 2\nlisted 3\n")
    manifest = scan_identity(tmp_path, "  for all ", SIZE)
    assert {item.source.path.name: item.caption for item in manifest.items} == {"1.png": "beside", "2.png": "listed 2", "3.png": "for all"}
    assert reasons(manifest)["images/gone.png"].startswith("missing: videos.txt lists it")
    with pytest.raises(InputError, match=r"3\.png has no caption; write one into 3\.txt"):
        scan_identity(tmp_path, " ", SIZE)
    (tmp_path / "prompts.txt").write_text("listed 1\n")
    with pytest.raises(InputError, match=r"1 lines and videos\.txt has 3"):
        scan_identity(tmp_path, "x", SIZE)
    (tmp_path / "prompts.txt").unlink()
    with pytest.raises(InputError, match=r"has videos\.txt but no prompts\.txt"):
        scan_identity(tmp_path, "x", SIZE)


def test_captions_that_are_not_text(tmp_path):
    save(tmp_path / "a.png", blocks(80, 120, 1))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00odd!")
    with pytest.raises(InputError, match=r"a\.txt is not UTF-8 text; save it as UTF-8"):
        scan_identity(tmp_path, "x", SIZE)


def test_exact_size_is_untouched(tmp_path):
    pixels = noise(*SIZE, 1)
    save(tmp_path / "a.png", pixels)
    frames, mask = scan_identity(tmp_path, "x", SIZE).items[0].load()
    assert mask is None and frames.shape == (1, 3, *SIZE)
    assert torch.equal(frames[0], torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1)


def test_cover_crop_keeps_the_aspect(tmp_path):
    pixels = blocks(128, 400, 1)
    save(tmp_path / "a.png", pixels)
    frames, _ = scan_identity(tmp_path, "x", SIZE).items[0].load()
    centre = pixels[:, 104:296].reshape(64, 2, 96, 2, 3).mean((1, 3))
    assert (frames[0].permute(1, 2, 0) - torch.from_numpy(centre / 127.5 - 1)).abs().mean() < 0.05


def test_exif_rotation(tmp_path):
    pixels = noise(96, 64, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", pixels, exif=exif)
    frames, _ = scan_identity(tmp_path, "x", SIZE).items[0].load()
    expected = torch.from_numpy(numpy.rot90(pixels, -1).copy()).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(frames[0], expected)


def test_alpha_is_the_mask_over_neutral_grey(tmp_path):
    pixels = noise(*SIZE, 1, channels=4)
    pixels[..., 3] = 255
    pixels[:, :40, 3] = 0
    save(tmp_path / "a.png", pixels)
    manifest = scan_identity(tmp_path, "x", SIZE)
    frames, mask = manifest.items[0].load()
    assert mask.shape == (1, 1, *SIZE) and mask[..., :40].max() == 0 and mask[..., 40:].min() == 1
    assert frames[0, :, :, :40].unique().tolist() == pytest.approx([128 / 127.5 - 1], abs=1e-6)
    assert torch.equal(frames[0, :, :, 40:], torch.from_numpy(pixels[:, 40:, :3]).permute(2, 0, 1).float() / 127.5 - 1)
    assert manifest.report.notes == ("1 photo carries a subject mask in its alpha channel",)


def test_image_modes(tmp_path):
    grey = numpy.tile(numpy.arange(96, dtype=numpy.uint16) * 680, (64, 1))
    Image.fromarray(grey).save(tmp_path / "sixteen.png")
    deep = numpy.asarray(open_photo(tmp_path / "sixteen.png").picture)
    assert numpy.abs(deep[..., 0].astype(int) - grey / 257).max() <= 0.5
    colours = Image.fromarray(blocks(64, 96, 1))
    colours.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    colours.quantize(32).save(tmp_path / "palette.png")
    for name in ("cmyk.jpg", "palette.png"):
        photo = open_photo(tmp_path / name)
        assert photo.picture.shape == (64, 96, 3) and photo.subject is None
        assert numpy.abs(numpy.asarray(photo.picture).astype(int) - numpy.asarray(colours)).mean() < 8
    colours.quantize(32).save(tmp_path / "clear.png", transparency=0)
    assert open_photo(tmp_path / "clear.png").subject is not None
    for mode in ("1", "L", "LA"):
        colours.convert(mode).save(tmp_path / f"{mode}.png")
        assert open_photo(tmp_path / f"{mode}.png").picture.shape == (64, 96, 3)


def test_crops_lie_at_whole_pixels(tmp_path):
    settings = CropSettings(num_crops=8, crop_margin=0.25)
    height, width = 80, 120
    pixels = noise(height, width, 1)
    save(tmp_path / "a.png", pixels)
    manifest = scan_identity(tmp_path, "x", SIZE, settings)
    assert [item.name for item in manifest.items] == [f"a.png crop {number}" for number in range(1, 9)]
    canvas = torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1

    def place(frame: torch.Tensor) -> tuple[int, int]:
        spots = [(top, left) for top in range(height - 63) for left in range(width - 95)]
        [spot] = [(top, left) for top, left in spots if torch.equal(canvas[:, top : top + 64, left : left + 96], frame)]
        return spot

    places = [place(item.load()[0][0]) for item in manifest.items]
    assert places[0] == (8, 12) and len(set(places)) > 4
    again = scan_identity(tmp_path, "x", SIZE, settings)
    assert all(torch.equal(a.load()[0], b.load()[0]) for a, b in zip(manifest.items, again.items, strict=True))


def test_crop_settings_are_checked():
    for wrong in ({"num_crops": 0}, {"crop_margin": -0.1}, {"num_crops": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CropSettings(**wrong)
