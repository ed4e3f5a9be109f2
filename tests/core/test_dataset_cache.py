"""What is prepared once and read again; one test on real data where it is at hand."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
import torch
from media import REAL_DATA, SIZE, FakeBase, make_clip, noise, save
from safetensors.torch import save_file

from dualreal_core.dataset import Manifest, prepare, scan_identity, scan_motion
from dualreal_core.dataset.cache import shrink_mask
from dualreal_core.errors import InputError
from dualreal_core.files.cache_folder import user_cache_folder


@pytest.fixture
def clips(tmp_path) -> Manifest:
    make_clip(tmp_path / "clips" / "a.mp4", 30, 8)
    return scan_motion(tmp_path / "clips", "dance", SIZE, 13, 8, max_segments=2, frame_multiple=4)


def test_prepare_encodes_once(tmp_path, clips):
    base, ticks = FakeBase(), []
    first = prepare(base, clips, tmp_path / "cache", progress=lambda done, total: ticks.append((done, total)))
    assert base.calls == ["load", "text", *(["frames"] + ["image"] * 4) * 2] and not base.is_loaded
    assert ticks == [(1, 2), (2, 2)]
    item = first.items[0]
    assert item.latents.shape == (3, 4, 8, 12) and item.latents.dtype == torch.float32
    assert item.text.shape == (5, 1) and item.conditions.shape == (4, 6) and item.mask is None
    assert (clips.items[0].caption, item.source, clips.items[0].num_frames) == ("dance", "a.mp4 frames 0-12", 13)
    assert first.fingerprints == (clips.items[0].fingerprint,)

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
    prepare(renamed, scan_motion(tmp_path / "clips", "jump", SIZE, 13, 8, max_segments=2, frame_multiple=4), cache)
    assert "text" in renamed.calls
    fewer = FakeBase()
    prepare(fewer, clips, cache, condition_frames=2)
    assert "image" in fewer.calls
    (tmp_path / "clips" / "a.mp4").rename(tmp_path / "clips" / "b.mp4")
    moved = FakeBase()
    prepare(moved, scan_motion(tmp_path / "clips", "dance", SIZE, 13, 8, max_segments=2, frame_multiple=4), cache)
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


def test_captions_come_before_frames_so_that_the_text_encoder_can_leave(tmp_path):
    for name, caption, num_frames in (("a", "dance", 30), ("b", "jump", 20)):
        make_clip(tmp_path / "clips" / f"{name}.mp4", num_frames, 8)
        (tmp_path / "clips" / f"{name}.txt").write_text(caption)
    base = FakeBase(condition_dim=None)
    prepare(base, scan_motion(tmp_path / "clips", None, SIZE, 13, 8, max_segments=1, frame_multiple=4), tmp_path / "cache")
    assert base.calls == ["load", "text", "text", "frames", "frames"]


def test_processes_share_a_cache_that_they_fill_at_once(tmp_path, clips):
    together, results = threading.Barrier(4), []

    class Waiting(FakeBase):
        def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
            latents = super().encode_frames(frames)
            together.wait(20)
            return latents

    def fill() -> None:
        results.append(prepare(Waiting(), clips, tmp_path / "cache"))

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(list((tmp_path / "cache").iterdir())) == len(clips.items)
    quiet = FakeBase()
    for done in (*results, prepare(quiet, clips, tmp_path / "cache")):
        assert all(torch.equal(a.latents, b.latents) for a, b in zip(done.items, results[0].items, strict=True))
    assert quiet.calls == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/dualreal"),
        ("linux", {}, "/people/ann/.cache/dualreal"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/people/ann/.cache/dualreal"),
        ("darwin", {}, "/people/ann/Library/Caches/dualreal"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "/caches/dualreal"),
        ("win32", {"LOCALAPPDATA": "/people/ann/AppData/Local"}, "/people/ann/AppData/Local/dualreal/Cache"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, platform, variables, expected):
    monkeypatch.delenv("XDG_CACHE_HOME")
    for name, value in {"HOME": "/people/ann", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert user_cache_folder() == Path(expected)


def test_prepare_photos_with_masks(tmp_path):
    pixels = noise(*SIZE, 1, channels=4)
    pixels[..., 3] = 0
    pixels[:, 44:, 3] = 255
    save(tmp_path / "photos" / "a.png", pixels)
    save(tmp_path / "photos" / "b.png", noise(*SIZE, 2))
    manifest = scan_identity(tmp_path / "photos", "a dog", SIZE)
    for _ in range(2):
        items = prepare(FakeBase(), manifest, tmp_path / "cache").items
        still, opaque = items
        assert still.mask.shape == (1, 1, 8, 12) and still.mask[0, 0, 0].tolist() == [0] * 5 + [0.5] + [1] * 6
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
    clips.items[0].source.path.unlink()
    with pytest.raises(InputError, match=r"a\.mp4 does not exist"):
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
