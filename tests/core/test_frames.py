"""Decoded pictures and clips by the rules of the folder scans: what is used, what is skipped, and what the samples show."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch

from dualreal_core.dataset import CropSettings
from dualreal_core.dataset.captions import match_captions
from dualreal_core.dataset.frames import DecodedClip, clips_report, cut_photos
from dualreal_core.dataset.items import Item
from dualreal_core.dataset.pixels import cover, fit_mask
from dualreal_core.dataset.selection import ClipSelection
from dualreal_core.dataset.sizes import TrainingSize, cover_box
from dualreal_core.errors import InputError

ONE_CROP = CropSettings()
OWN_SIZE = TrainingSize(multiple=16)


def blocks(height: int, width: int, seed: int, channels: int = 3) -> torch.Tensor:
    """A 4x4 board of random colours, float (H, W, C)."""
    board = torch.rand(4, 4, channels, generator=torch.Generator().manual_seed(seed))
    return board.repeat_interleave(-(-height // 4), 0).repeat_interleave(-(-width // 4), 1)[:height, :width]


def levels(num_frames: int, height: int = 64, width: int = 96) -> torch.Tensor:
    """Frame i is a grey of level i / 100, so that what is shown tells which frames were chosen."""
    return (torch.arange(num_frames) / 100)[:, None, None, None].expand(num_frames, height, width, 3)


class Sample(NamedTuple):
    """What an item shows."""

    item: Item
    frames: torch.Tensor
    mask: torch.Tensor | None


def shown_by(items: Sequence[Item]) -> list[Sample]:
    return [Sample(item, *item.pixels()) for item in items]


def photos(pictures: list[torch.Tensor], masks: list[torch.Tensor] | None = None, size=OWN_SIZE, crops: CropSettings = ONE_CROP):
    items, report = cut_photos(pictures, ["x"] * len(pictures), masks, size, crops)
    return shown_by(items), report


def selection(
    size: TrainingSize = OWN_SIZE,
    num_frames: int = 13,
    fps: float = 0.0,
    max_segments: int = 4,
    frame_multiple: int = 4,
    frame_remainder: int = 1,
) -> ClipSelection:
    return ClipSelection("videos", size, num_frames, fps, max_segments, frame_multiple, frame_remainder)


def add(chosen: ClipSelection, name: str, frames: torch.Tensor, rate: float, caption: str = "x") -> list[Sample]:
    return shown_by(chosen.add(DecodedClip(name, caption, frames, rate)))


def test_photo_reasons():
    hidden = blocks(64, 96, 6, channels=4)
    hidden[..., 3] = 0
    broken = blocks(64, 96, 7)
    broken[3, 3] = float("nan")
    near = blocks(64, 96, 1).clone()
    near[0, 0] = 0.5
    pictures = [blocks(64, 96, 1), blocks(64, 96, 1), near, blocks(10, 10, 2), hidden, broken]
    pictures += [blocks(64, 96, 8, channels=2), blocks(80, 70, 9)]
    samples, report = photos(pictures)
    assert report.used == ("image 1", "image 8") and [tuple(sample.frames.shape) for sample in samples] == [(1, 64, 96, 3), (1, 80, 64, 3)]
    assert report.skipped == {
        "image 2": "exact duplicate of image 1",
        "image 3": "near-identical to image 1",
        "image 4": "too small: 10x10 px hold no 16x16 px",
        "image 5": "empty: every pixel is transparent",
        "image 6": "not finite: some of its pixels are NaN or infinite",
        "image 7": "unreadable: it has 2 channels instead of 1, 3 or 4",
    }
    lines = report.lines()
    assert lines[:2] == ["identity: 2 of 8 images used as photos, 2 training samples", "96x64 px: 1 sample"]
    assert "skipped image 2: exact duplicate of image 1" in lines


def test_pictures_and_masks_without_pixels_are_named():
    samples, report = photos([torch.zeros(0, 64, 3), blocks(64, 64, 1)], size=TrainingSize(64, 64, 16))
    assert len(samples) == 1 and report.skipped == {"image 1": "unreadable: it has no pixels"}
    with pytest.raises(InputError, match="The mask of image 1 has no pixels"):
        photos([blocks(64, 64, 1)], [torch.zeros(0, 0)])


def test_nothing_usable_is_one_sentence():
    with pytest.raises(InputError, match=r"^Identity Dataset: the only image cannot be used \(image 1: too small: 8x8") as caught:
        photos([blocks(8, 8, 1)])
    assert str(caught.value).endswith("wire larger or whole pictures.")
    with pytest.raises(InputError, match="none of the 2 images can be used"):
        photos([blocks(8, 8, 1), blocks(9, 9, 1)])


def test_own_size_is_never_resampled():
    picture = torch.rand(48, 48, 3, generator=torch.Generator().manual_seed(1))
    samples, _ = photos([picture], size=TrainingSize(multiple=8))
    assert torch.equal(samples[0].frames[0], picture)
    crops = CropSettings(num_crops=6, crop_margin=0.5)
    samples, report = photos([picture], size=TrainingSize(multiple=8), crops=crops)
    assert [tuple(sample.frames.shape) for sample in samples] == [(1, 32, 32, 3)] * 6 and not report.skipped
    assert torch.equal(samples[0].frames[0], picture[8:40, 8:40])
    windows = picture.unfold(0, 32, 1).unfold(1, 32, 1).permute(0, 1, 3, 4, 2)  # (17, 17, 32, 32, 3)
    places = [torch.nonzero((windows == sample.frames[0]).flatten(2).all(2)).tolist() for sample in samples]
    assert all(len(place) == 1 for place in places) and len({tuple(place[0]) for place in places}) > 3
    again, _ = photos([picture], size=TrainingSize(multiple=8), crops=crops)
    assert all(torch.equal(a.frames, b.frames) for a, b in zip(samples, again, strict=True))


@pytest.mark.parametrize(
    ("height", "width", "margin", "canvas", "size"),
    [
        (0, 0, 0.0, (100, 200), (96, 192)),
        (0, 0, 0.5, (100, 200), (64, 128)),
        (64, 96, 0.0, (64, 96), (64, 96)),
        (64, 96, 0.25, (80, 120), (64, 96)),
        (70, 100, 0.0, (64, 96), (64, 96)),
        (0, 96, 0.0, (48, 96), (48, 96)),
        (64, 0, 0.0, (64, 128), (64, 128)),
    ],
)
def test_training_size(height, width, margin, canvas, size):
    assert TrainingSize(height, width, 16).fit((100, 200), margin) == (canvas, size)


def test_sides_below_the_multiple_are_refused():
    with pytest.raises(InputError, match="width is 8 px, and the VAE needs at least 16; raise it"):
        TrainingSize(0, 8, 16)


def test_rounded_sizes_and_enlargements_are_noted():
    _, report = photos([blocks(40, 60, 1)], size=TrainingSize(70, 100, 16))
    assert "width 100 is not a multiple of 16 px: 96 is used" in report.notes
    assert "image 1 is 60x40 and is enlarged 1.6 times" in report.notes


def test_a_picture_that_the_crop_halves_is_noted():
    _, report = photos([blocks(128, 96, 1), blocks(96, 128, 1)], size=TrainingSize(64, 96, 16))
    assert [note for note in report.notes if "loses" in note] == ["image 1 is 96x128 and loses 50% of its height to the crop"]


def test_scaling_covers_and_crops_the_centre():
    picture = blocks(128, 400, 1)
    [cut] = cover(picture[None], (64, 96))
    assert cover_box((128, 400), (64, 96)) == ((64, 200), 0, 52)
    expected = picture[:, 104:296].reshape(64, 2, 96, 2, 3).mean((1, 3))
    assert (cut - expected).abs().mean() < 0.02 and cut.min() >= 0 and cut.max() <= 1
    assert cover(picture[None, ..., :1], (32, 100)).shape == (1, 32, 100, 1)


def test_alpha_is_the_subject_over_grey():
    picture = blocks(64, 96, 1, channels=4)
    picture[..., 3] = 1
    picture[:, :40, 3] = 0
    samples, report = photos([picture])
    assert samples[0].mask.shape == (1, 64, 96) and samples[0].mask[..., :40].max() == 0 and samples[0].mask[..., 40:].min() == 1
    assert samples[0].frames[0, :, :40].unique().tolist() == pytest.approx([128 / 255])
    assert torch.equal(samples[0].frames[0, :, 40:], picture[:, 40:, :3]) and "1 image carries a subject mask" in report.notes
    opaque = blocks(64, 96, 2, channels=4)
    opaque[..., 3] = 1
    assert photos([opaque])[0][0].mask is None


def test_masks_leave_the_picture_alone():
    pictures, mask = [blocks(64, 96, 1), blocks(64, 96, 2)], torch.zeros(64, 96)
    mask[:, 40:] = 1
    samples, _ = photos(pictures, [mask, torch.ones(64, 96)])
    assert torch.equal(samples[0].frames[0], pictures[0]) and torch.equal(samples[0].mask[0], mask) and samples[1].mask is None
    columns = torch.arange(96.0).expand(64, 96)
    places = (columns / 96)[..., None].expand(64, 96, 3)
    samples, _ = photos([places], [columns.clamp(0, 40) / 40], crops=CropSettings(num_crops=4, crop_margin=0.3))
    assert [sample.item.name for sample in samples] == [f"image 1 crop {number}" for number in (1, 2, 3, 4)]
    for sample in samples:
        assert sample.mask.shape == (1, 48, 64) and torch.allclose(sample.mask, (sample.frames[..., 0] * 96).clamp(0, 40) / 40)
    assert len({float(sample.frames[0, 0, 0, 0]) for sample in samples}) > 1
    both = torch.cat([pictures[0], torch.ones(64, 96, 1)], dim=2)
    both[:32, :, 3] = 0
    samples, _ = photos([both], [mask])
    assert samples[0].mask[:, :32].max() == 0 and samples[0].mask[:, 32:, :40].max() == 0 and samples[0].mask[:, 32:, 40:].min() == 1


def test_masks_of_other_sizes():
    picture = blocks(64, 96, 1)
    half = torch.zeros(32, 48)
    half[:, 24:] = 1
    assert fit_mask(half, (64, 96), "image 1")[:, 50:].min() == 1
    assert photos([picture], [torch.zeros(64, 64)])[0][0].mask is None, "the blank mask that loaders give for opaque pictures"
    with pytest.raises(InputError, match="The mask of image 1 is 50x50 and the image 96x64; wire the masks in the order"):
        photos([picture], [torch.eye(50)])
    with pytest.raises(InputError, match="images holds 1 and masks 2; give one mask per image"):
        photos([picture], [torch.ones(64, 96)] * 2)
    with pytest.raises(InputError, match=r"its mask marks no subject .*Invert Mask"):
        photos([picture], [torch.zeros(64, 96)])


def test_captions():
    assert match_captions([" a "], 3, "image") == ["a"] * 3
    assert match_captions(["a", "b"], 2, "image") == ["a", "b"]
    with pytest.raises(InputError, match=r"images holds 3 and texts 2; give one text per image"):
        match_captions(["a", "b"], 3, "image")
    with pytest.raises(InputError, match="video 2 has no caption; write one"):
        match_captions(["a", " "], 2, "video")
    for texts in ([], [""], ["", ""]):
        with pytest.raises(InputError, match="The images have no caption; wire one text per image"):
            match_captions(texts, 2, "image")
    with pytest.raises(InputError, match="videos holds nothing"):
        match_captions(["a"], 0, "video")


def test_captions_as_windows_writes_them():
    assert match_captions(["\ufeffa dog *\r\non grass\r\n"], 1, "image") == ["a dog * on grass"]
    with pytest.raises(InputError, match="The images have no caption"):
        match_captions(["\ufeff"], 1, "image")
    with pytest.raises(InputError, match="The caption of image 2 is not UTF-8 text"):
        match_captions(["a", "a\0 \0d\0o\0g"], 2, "image")


def test_captions_that_are_missing_are_named_by_file():
    names = ["video 1 (a.mp4)", "video 2 (b.mp4)", "video 3 (c.mp4)"]
    with pytest.raises(InputError, match=r"^video 1 \(a\.mp4\) and video 3 \(c\.mp4\) have no caption; write one"):
        match_captions(["", "b", None], 3, "video", names)


def test_reports_name_pictures_as_they_were_named():
    items, report = cut_photos(
        [blocks(64, 96, 1), blocks(64, 96, 1)], ["x", "x"], None, OWN_SIZE, ONE_CROP, ["image 1 (a.png)", "image 2 (b.png)"]
    )
    assert [item.source.name for item in items] == ["image 1 (a.png)"]
    assert report.skipped == {"image 2 (b.png)": "exact duplicate of image 1 (a.png)"}


def test_segments_show_the_right_frames():
    clips = selection(num_frames=9, fps=8, max_segments=3)
    samples = add(clips, "video 1", levels(100), 25, "dance")
    assert [sample.item.name for sample in samples] == ["video 1 frames 0-8", "video 1 frames 12-20", "video 1 frames 23-31"]
    for sample, start in zip(samples, (0, 12, 23), strict=True):
        assert sample.frames.shape == (9, 64, 96, 3) and sample.mask is None and sample.item.caption == "dance"
        shown = [int((k / 8 + 0.006) * 25) for k in range(start, start + 9)]
        assert (sample.frames.mean((1, 2, 3)) * 100).round().int().tolist() == shown
    report = clips_report(clips)
    assert report.lines()[0] == "motion: 1 of 1 video used as a clip, 3 training samples"
    assert report.notes == ("9 frames of 96x64 px: 3 samples", "1 clip is resampled to 8 fps at its true speed")


def test_frames_are_repeated_rather_than_slowed_down():
    [sample] = add(selection(num_frames=9, fps=16, max_segments=1), "video 1", levels(5), 8)
    assert (sample.frames.mean((1, 2, 3)) * 100).round().int().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_own_rate_and_length():
    clips = selection(num_frames=15)
    [sample] = add(clips, "video 1", levels(11), 25)
    assert sample.frames.shape[0] == 9 and clips.num_frames == 13
    notes = clips_report(clips).notes
    assert "15 frames do not fit the VAE, which takes 4 * k + 1: 13 are used" in notes
    assert "used at 9 frames instead of 13, being short: video 1" in notes
    assert len(add(selection(num_frames=15, frame_multiple=1), "video 1", levels(15), 25)[0].frames) == 15
    with pytest.raises(InputError, match="frames is 8, and motion needs at least 9 with this VAE"):
        selection(num_frames=8, frame_multiple=8)


def test_lengths_of_a_vae_that_begins_with_several_frames():
    clips = selection(num_frames=49, frame_multiple=17, frame_remainder=5)
    assert clips.num_frames == 39
    assert [len(sample.frames) for sample in add(clips, "video 1", levels(30), 25)] == [22]
    assert add(clips, "video 2", levels(4), 25) == [] and "5 are needed" in clips.skipped["video 2"]
    assert "49 frames do not fit the VAE, which takes 17 * k + 5: 39 are used" in clips_report(clips).notes
    with pytest.raises(InputError, match="frames is 4, and motion needs at least 5 with this VAE"):
        selection(num_frames=4, frame_multiple=17, frame_remainder=5)


def test_clip_reasons():
    clips = selection(size=TrainingSize(64, 96, 16))
    broken = levels(13).clone()
    broken[6, 0, 0] = float("inf")
    given = [levels(13), levels(13), levels(1), levels(4), levels(13, 10, 10), broken]
    assert [len(add(clips, f"video {index}", frames, 8)) for index, frames in enumerate(given, 1)] == [1, 0, 0, 0, 0, 0]
    report = clips_report(clips)
    assert report.skipped == {
        "video 2": "exact duplicate of video 1",
        "video 3": "too short: it has a single frame, and motion needs several",
        "video 4": "too short: 0.50 s give 4 frames at 8 fps, and 5 are needed",
        "video 5": "too small: 10x10 px, and the shorter side needs 16 px",
        "video 6": "not finite: some of its pixels are NaN or infinite",
    }
    nothing = selection()
    add(nothing, "video 1", levels(3), 8)
    with pytest.raises(InputError, match=r"Motion Dataset: the only video cannot be used \(video 1: too short.*; wire whole clips"):
        clips_report(nothing)


def test_clips_that_could_not_be_decoded_whole():
    clips = selection()
    assert not add(clips, "video 1", levels(0), 8) and not add(clips, "video 2", levels(13), 0)
    assert not clips.add(DecodedClip("video 3", "x", levels(13), 8, num_promised=17))
    assert clips.add(DecodedClip("video 4", "x", levels(13), 8, num_promised=15)), "containers promise a frame or two too many"
    assert clips_report(clips).skipped == {
        "video 1": "unreadable: no frame of it could be decoded",
        "video 2": "unreadable: no frame of it could be decoded",
        "video 3": "damaged: only 13 of 17 frames could be decoded",
    }


def test_clips_are_cut_to_size():
    [sample] = add(selection(size=TrainingSize(32, 32, 16)), "video 1", levels(13), 8)
    assert sample.frames.shape == (13, 32, 32, 3)


def test_needs_no_video_package():
    code = "import sys; sys.modules['imageio_ffmpeg'] = None; import dualreal_core.dataset.frames, dualreal_core.video"
    subprocess.run([sys.executable, "-c", code], check=True)
