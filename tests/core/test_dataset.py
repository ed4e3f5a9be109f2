"""Scanning, views, windows and the cache, on files made here; one test on real data where it is at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dualreal_core.dataset import Manifest, ViewSettings, prepare, scan_identity, scan_motion
from dualreal_core.dataset.cache import shrink_mask
from dualreal_core.dataset.photos import open_photo
from dualreal_core.dataset.windows import TIMESTAMP_SLACK, resample, window_length, window_starts
from dualreal_core.errors import InputError
from dualreal_core.video import write_gif, write_mp4

SIZE = (64, 96)
REAL_DATA = Path(__file__).parents[2].parent / "shared" / "data"


class FakeBase:
    """Encodes by averaging, deterministically, and counts how often it is asked."""

    name = "fake"
    latent_channels = 3
    size_multiple = 8
    fingerprint = "fake-1"

    def __init__(self, frame_multiple: int = 4, condition_dim: int | None = 6) -> None:
        self.frame_multiple = frame_multiple
        self.condition_dim = condition_dim
        self.is_loaded = False
        self.calls: list[str] = []

    @contextmanager
    def encoders(self) -> Iterator[None]:
        self.calls.append("load")
        self.is_loaded = True
        try:
            yield
        finally:
            self.is_loaded = False

    def encode_text(self, prompt: str) -> torch.Tensor:
        assert self.is_loaded
        self.calls.append("text")
        return torch.tensor([[float(ord(letter))] for letter in prompt], dtype=torch.bfloat16)

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        assert self.is_loaded
        self.calls.append("frames")
        pooled = torch.nn.functional.avg_pool2d(frames, 8)[:: self.frame_multiple]
        return pooled.transpose(0, 1).to(torch.bfloat16)

    def embed_image(self, frame: torch.Tensor) -> torch.Tensor:
        assert self.is_loaded
        self.calls.append("image")
        return torch.nn.functional.adaptive_avg_pool2d(frame, (1, 2)).flatten()

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        return 3, (num_frames - 1) // self.frame_multiple + 1, height // 8, width // 8


def noise(height: int, width: int, seed: int, channels: int = 3) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=numpy.uint8)


def blocks(height: int, width: int, seed: int) -> numpy.ndarray:
    """A 4x4 board of random colours: pictures that survive scaling and differ in their thumbnails."""
    return numpy.kron(noise(4, 4, seed), numpy.ones((-(-height // 4), -(-width // 4), 1), numpy.uint8))[:height, :width]


def save(path: Path, pixels: numpy.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def make_clip(path: Path, num_frames: int, fps: float, height: int = 256, width: int = 384) -> Path:
    """Frame i is a grey of level i, so that what was read tells which frames were chosen."""
    levels = torch.arange(num_frames).float() / max(1, num_frames - 1) * 1.6 - 0.8
    frames = levels[:, None, None, None].expand(num_frames, 3, height, width)
    (write_gif if path.suffix == ".gif" else write_mp4)(path, frames, fps)
    return path


def reasons(manifest: Manifest) -> dict[str, str]:
    return {skip.file: skip.reason for skip in manifest.report.skipped}


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
    assert json.loads(json.dumps(manifest.report.as_dict()))["skipped"][0].keys() == {"file", "reason"}


@pytest.mark.parametrize(("size", "passes"), [((32, 32), True), ((480, 720), False)])
def test_smallest_side_follows_the_training_size(tmp_path, size, passes):
    save(tmp_path / "a.png", blocks(40, 48, 1))
    if passes:
        assert len(scan_identity(tmp_path, "x", size).items) == 1
    else:
        with pytest.raises(InputError, match=r"the only file can be used \(a\.png: too small: 48x40") as caught:
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
    assert {item.path.name: item.caption for item in manifest.items} == {"1.png": "beside", "2.png": "listed 2", "3.png": "for all"}
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
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00bad")
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
    assert manifest.report.notes == ("1 photos carry a subject mask in their alpha channel",)


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
        assert photo.picture.mode == "RGB" and photo.subject is None
        assert numpy.abs(numpy.asarray(photo.picture).astype(int) - numpy.asarray(colours)).mean() < 8
    colours.quantize(32).save(tmp_path / "clear.png", transparency=0)
    assert open_photo(tmp_path / "clear.png").subject is not None
    for mode in ("1", "L", "LA"):
        colours.convert(mode).save(tmp_path / f"{mode}.png")
        assert open_photo(tmp_path / f"{mode}.png").picture.mode == "RGB"


def test_views_are_whole_pixel_windows(tmp_path):
    settings = ViewSettings(num_views=8, margin=0.25, num_clip_frames=9)
    height, width = settings.canvas(SIZE)
    pixels = noise(height, width, 1)
    save(tmp_path / "a.png", pixels)
    manifest = scan_identity(tmp_path, "x", SIZE, settings)
    stills = [item for item in manifest.items if item.kind == "still"]
    pans = [item for item in manifest.items if item.kind == "pan"]
    assert len(stills) == 8 and len(pans) == 8 and {item.num_frames for item in pans} == {9}
    canvas = torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1

    def place(frame: torch.Tensor) -> tuple[int, int]:
        spots = [(top, left) for top in range(height - 63) for left in range(width - 95)]
        [spot] = [(top, left) for top, left in spots if torch.equal(canvas[:, top : top + 64, left : left + 96], frame)]
        return spot

    places = [place(item.load()[0][0]) for item in stills]
    assert places[0] == (8, 12) and len(set(places)) > 4
    static = []
    for item in pans:
        frames, _ = item.load()
        path = [place(frame) for frame in frames]
        static.append(len(set(path)) == 1)
        for axis in range(2):
            line = numpy.linspace(path[0][axis], path[-1][axis], 9)
            assert numpy.abs(line - [spot[axis] for spot in path]).max() <= 0.5
    assert static == [False, False, False, True] * 2
    again = scan_identity(tmp_path, "x", SIZE, settings)
    assert all(torch.equal(a.load()[0], b.load()[0]) for a, b in zip(manifest.items, again.items, strict=True))


def test_view_settings_are_checked():
    for wrong in ({"num_views": 0}, {"margin": -0.1}, {"num_clip_frames": 0}, {"num_views": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ViewSettings(**wrong)


def test_resampling_keeps_the_duration():
    times = [index / 25 for index in range(50)]
    shown = resample(times, 2.0, 8)
    assert len(shown) == 16 and shown == [int((k / 8 + TIMESTAMP_SLACK) * 25) for k in range(16)]
    assert resample(times, 2.0, 25) == list(range(50))
    assert resample([0.0, 0.25, 0.5, 0.75], 1.0, 8) == [0, 0, 1, 1, 2, 2, 3, 3]
    rounded = [round(index / 30, 3) for index in range(30)]
    assert resample(rounded, 1.0, 30) == list(range(30))
    assert resample([0.0, 1.0], 1.1, 8) == [0] * 8 + [1]


def test_window_rules():
    assert [window_length(n, 49, 4) for n in (4, 5, 8, 9, 48, 49, 300)] == [None, 5, 5, 9, 45, 49, 49]
    assert [window_length(n, 16, 1) for n in (1, 2, 15, 40)] == [None, 2, 15, 16]
    assert window_starts(10, 10, 4) == [0] and window_starts(13, 10, 4) == [1]
    assert window_starts(20, 10, 4) == [0, 10] and window_starts(100, 10, 4) == [0, 30, 60, 90]


def test_motion_windows_show_the_right_frames(tmp_path):
    make_clip(tmp_path / "a.mp4", 100, 25)
    manifest = scan_motion(tmp_path, "x", (64, 64), 9, 8, max_windows=3, frame_multiple=4)
    assert [item.window for item in manifest.items] == [(0, 9), (12, 9), (23, 9)]
    assert manifest.report.notes == ("1 clips are resampled to 8 fps at their true speed",)
    for item in manifest.items:
        frames, mask = item.load()
        assert mask is None and frames.shape == (9, 3, 64, 64) and frames.abs().max() <= 1
        shown = [int((k / 8 + TIMESTAMP_SLACK) * 25) for k in range(item.window[0], item.window[0] + 9)]
        expected = torch.tensor(shown) / 99 * 1.6 - 0.8
        assert (frames.mean((1, 2, 3)) - expected).abs().max() < 0.02


def test_motion_reasons_and_short_clips(tmp_path):
    make_clip(tmp_path / "videos" / "a.mp4", 30, 8)
    make_clip(tmp_path / "b_short.mp4", 7, 8)
    make_clip(tmp_path / "c_single.mp4", 1, 8)
    make_clip(tmp_path / "d_brief.mp4", 20, 60)
    cut = make_clip(tmp_path / "e_cut.mp4", 31, 8)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "f_words.avi").write_text("not a clip")
    (tmp_path / "g_copy.mp4").write_bytes((tmp_path / "videos" / "a.mp4").read_bytes())
    make_clip(tmp_path / "h.gif", 16, 8)
    save(tmp_path / "photo.png", blocks(80, 120, 1))
    manifest = scan_motion(tmp_path, "x", (64, 96), 13, 8, frame_multiple=4)
    found = reasons(manifest)
    assert set(manifest.report.used) == {"b_short.mp4", "g_copy.mp4", "h.gif"}
    assert "b_short.mp4 has 7 frames at 8 fps and is used at 5 instead of 13" in manifest.report.notes
    assert found["c_single.mp4"] == "too short: it has a single frame, and motion needs several"
    assert found["d_brief.mp4"] == "too short: 0.33 s give 3 frames at 8 fps, and 5 are needed"
    assert found["e_cut.mp4"].startswith("unreadable: ") and found["f_words.avi"].startswith("unreadable: ")
    assert found["videos/a.mp4"] == "exact duplicate of g_copy.mp4"
    assert found["photo.png"] == "unsupported: .png is not a video kind used here"
    assert len(scan_motion(tmp_path, "x", (64, 96), 3, 8).items) > len(manifest.items)


def test_reference_layout(tmp_path):
    make_clip(tmp_path / "videos" / "10.mp4", 9, 8)
    make_clip(tmp_path / "videos" / "2.mp4", 10, 8)
    make_clip(tmp_path / "elsewhere" / "x.mp4", 11, 8)
    (tmp_path / "videos.txt").write_text("videos/2.mp4\r\nvideos\\10.mp4\r\nelsewhere/x.mp4\r\n\r\n")
    (tmp_path / "prompts.txt").write_text("two\nten\nx\n")
    manifest = scan_motion(tmp_path, None, SIZE, 9, 8, max_windows=1)
    assert [(item.path.name, item.caption) for item in manifest.items] == [("x.mp4", "x"), ("2.mp4", "two"), ("10.mp4", "ten")]


def test_motion_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"num_frames is 8; it must be 4 \* k \+ 1"):
        scan_motion(tmp_path, "x", SIZE, 8, 8, frame_multiple=4)
    with pytest.raises(ValueError, match="max_windows is 0"):
        scan_motion(tmp_path, "x", SIZE, 9, 8, max_windows=0)


@pytest.fixture
def clips(tmp_path) -> Manifest:
    make_clip(tmp_path / "clips" / "a.mp4", 30, 8)
    return scan_motion(tmp_path / "clips", "dance", SIZE, 13, 8, max_windows=2, frame_multiple=4)


def test_prepare_encodes_once(tmp_path, clips):
    base, ticks = FakeBase(), []
    first = prepare(base, clips, tmp_path / "cache", progress=lambda done, total: ticks.append((done, total)))
    assert base.calls == ["load", "text", *(["frames"] + ["image"] * 4) * 2] and not base.is_loaded
    assert ticks == [(1, 2), (2, 2)]
    item = first.items[0]
    assert item.latents.shape == (3, 4, 8, 12) and item.latents.dtype == torch.float32
    assert item.text.shape == (5, 1) and item.conditions.shape == (4, 6) and item.mask is None
    assert (item.caption, item.source, item.num_frames) == ("dance", "a.mp4 frames 0-12", 13)
    assert first.fingerprints == (clips.items[0].fingerprint,) and first.report is clips.report

    again, ticks = FakeBase(), []
    second = prepare(again, clips, tmp_path / "cache", progress=lambda done, total: ticks.append((done, total)))
    assert again.calls == [] and ticks == [(1, 2), (2, 2)]
    for a, b in zip(first.items, second.items, strict=True):
        assert torch.equal(a.latents, b.latents) and torch.equal(a.text, b.text) and torch.equal(a.conditions, b.conditions)
        assert a.text.dtype == b.text.dtype


def test_prepare_conditions_show_evenly_spaced_frames(tmp_path, clips):
    frames, _ = clips.items[0].load()
    prepared = prepare(FakeBase(), clips, tmp_path / "cache", condition_frames=3)
    assert torch.allclose(prepared.items[0].conditions.mean(1), frames[[0, 6, 12]].mean((1, 2, 3)), atol=1e-5)
    assert prepare(FakeBase(condition_dim=None), clips, tmp_path / "cache").items[0].conditions is None


def test_cache_key_covers_what_matters(tmp_path, clips):
    cache = tmp_path / "cache"
    prepare(FakeBase(), clips, cache)
    other = FakeBase()
    other.fingerprint = "fake-2"
    prepare(other, clips, cache)
    assert "frames" in other.calls
    renamed = FakeBase()
    prepare(renamed, scan_motion(tmp_path / "clips", "jump", SIZE, 13, 8, max_windows=2, frame_multiple=4), cache)
    assert "text" in renamed.calls
    fewer = FakeBase()
    prepare(fewer, clips, cache, condition_frames=2)
    assert "image" in fewer.calls
    (tmp_path / "clips" / "a.mp4").rename(tmp_path / "clips" / "b.mp4")
    moved = FakeBase()
    prepare(moved, scan_motion(tmp_path / "clips", "dance", SIZE, 13, 8, max_windows=2, frame_multiple=4), cache)
    assert moved.calls == []


@pytest.mark.parametrize("damage", ["cut", "words", "other"])
def test_damaged_cache_files_are_made_anew(tmp_path, clips, damage):
    cache = tmp_path / "cache"
    expected = prepare(FakeBase(), clips, cache)
    victim = sorted(cache.iterdir())[0]
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-9])
    elif damage == "words":
        victim.write_text("not tensors")
    else:
        save_file({"latents": torch.zeros(1, 1, 1, 1), "text": torch.zeros(1, 1)}, victim)
    base = FakeBase()
    repaired = prepare(base, clips, cache)
    assert base.calls.count("frames") == 1
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(expected.items, repaired.items, strict=True))
    quiet = FakeBase()
    prepare(quiet, clips, cache)
    assert quiet.calls == []


def test_interrupted_prepare_keeps_what_is_done(tmp_path, clips):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    base = FakeBase()
    with pytest.raises(KeyboardInterrupt):
        prepare(base, clips, tmp_path / "cache", progress=stop)
    assert not base.is_loaded
    rest = FakeBase()
    prepare(rest, clips, tmp_path / "cache")
    assert rest.calls.count("frames") == 1


def test_prepare_photos_with_masks(tmp_path):
    pixels = noise(*SIZE, 1, channels=4)
    pixels[..., 3] = 0
    pixels[:, 44:, 3] = 255
    save(tmp_path / "photos" / "a.png", pixels)
    save(tmp_path / "photos" / "b.png", noise(*SIZE, 2))
    manifest = scan_identity(tmp_path / "photos", "a dog", SIZE, ViewSettings(num_clip_frames=9))
    for _ in range(2):
        items = prepare(FakeBase(), manifest, tmp_path / "cache").items
        still, pan, opaque, _ = items
        assert still.mask.shape == (1, 1, 8, 12) and still.mask[0, 0, 0].tolist() == [0] * 5 + [0.5] + [1] * 6
        assert pan.mask.shape == (1, 3, 8, 12) and pan.latents.shape == (3, 3, 8, 12)
        assert opaque.mask is None and all(item.conditions is None for item in items)


def test_mask_takes_the_nearest_frame():
    mask = torch.arange(9).float()[:, None, None, None].expand(9, 1, 8, 8)
    assert shrink_mask(mask, (3, 3, 2, 2))[0, :, 0, 0].tolist() == [0, 4, 8]


def test_prepare_refuses_what_the_base_cannot_use(tmp_path, clips):
    with pytest.raises(InputError, match=r"13 frames; choose 8 \* k \+ 1"):
        prepare(FakeBase(frame_multiple=8), clips, tmp_path / "cache")
    save(tmp_path / "photos" / "a.png", noise(70, 100, 1))
    with pytest.raises(InputError, match="100x70 px; choose multiples of 8"):
        prepare(FakeBase(), scan_identity(tmp_path / "photos", "x", (70, 100)), tmp_path / "cache")
    (tmp_path / "taken").write_text("x")
    with pytest.raises(InputError, match="in the way"):
        prepare(FakeBase(), clips, tmp_path / "taken")


def test_file_that_vanishes_before_preparing(tmp_path, clips):
    clips.items[0].path.unlink()
    with pytest.raises(InputError, match=r"a\.mp4 could not be read"):
        prepare(FakeBase(), clips, tmp_path / "cache")


def test_real_data(tmp_path):
    photos, videos = REAL_DATA / "identity" / "dog", REAL_DATA / "motion" / "playing_guitar"
    if not (photos.is_dir() and videos.is_dir()):
        pytest.skip(f"REAL DATA NOT TESTED: {REAL_DATA} is absent")
    identity = scan_identity(photos, "a sks dog", (64, 96))
    motion = scan_motion(videos, "playing guitar", (64, 96), 17, 8, frame_multiple=4)
    assert len(identity.items) == 4 and not identity.report.skipped
    assert len(motion.report.used) == 8 and not motion.report.skipped
    items = prepare(FakeBase(), motion, tmp_path / "cache").items
    assert {tuple(item.latents.shape) for item in items} <= {(3, k, 8, 12) for k in range(2, 6)}
    assert len(items) >= 8 and all(item.latents.std() > 0.05 for item in items)
