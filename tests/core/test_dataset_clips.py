"""Scanning clips: rates, segments, and why one is left out."""

from __future__ import annotations

import pytest
import torch
from media import SIZE, blocks, make_clip, reasons, save

from dualreal_core.dataset import scan_motion
from dualreal_core.dataset.segments import segment_length, segment_starts
from dualreal_core.video.clip import TIMESTAMP_SLACK, resample


def test_resampling_keeps_the_duration():
    times = [index / 25 for index in range(50)]
    shown = resample(times, 2.0, 8)
    assert len(shown) == 16 and shown == [int((k / 8 + TIMESTAMP_SLACK) * 25) for k in range(16)]
    assert resample(times, 2.0, 25) == list(range(50))
    assert resample([0.0, 0.25, 0.5, 0.75], 1.0, 8) == [0, 0, 1, 1, 2, 2, 3, 3]
    rounded = [round(index / 30, 3) for index in range(30)]
    assert resample(rounded, 1.0, 30) == list(range(30))
    assert resample([0.0, 1.0], 1.1, 8) == [0] * 8 + [1]


def test_segment_rules():
    assert [segment_length(n, 49, 4) for n in (4, 5, 8, 9, 48, 49, 300)] == [None, 5, 5, 9, 45, 49, 49]
    assert [segment_length(n, 16, 1) for n in (1, 2, 15, 40)] == [None, 2, 15, 16]
    assert [segment_length(n, 49, 17, 5) for n in (4, 5, 21, 22, 300)] == [None, 5, 5, 22, 39]
    assert segment_starts(10, 10, 4) == [0] and segment_starts(13, 10, 4) == [1]
    assert segment_starts(20, 10, 4) == [0, 10] and segment_starts(100, 10, 4) == [0, 30, 60, 90]


def test_motion_segments_show_the_right_frames(tmp_path):
    make_clip(tmp_path / "a.mp4", 100, 25)
    manifest = scan_motion(tmp_path, "x", (64, 64), 9, 8, max_segments=3, frame_multiple=4)
    assert [item.name for item in manifest.items] == ["a.mp4 frames 0-8", "a.mp4 frames 12-20", "a.mp4 frames 23-31"]
    assert manifest.report.notes == ("1 clip is resampled to 8 fps at its true speed",)
    for item, start in zip(manifest.items, (0, 12, 23), strict=True):
        frames, mask = item.load()
        assert mask is None and frames.shape == (9, 3, 64, 64) and frames.abs().max() <= 1
        shown = [int((k / 8 + TIMESTAMP_SLACK) * 25) for k in range(start, start + 9)]
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
    assert found["photo.png"] == "unsupported: .png is not among the video kinds used here"
    assert len(scan_motion(tmp_path, "x", (64, 96), 3, 8).items) > len(manifest.items)


def test_reference_layout(tmp_path):
    make_clip(tmp_path / "videos" / "10.mp4", 9, 8)
    make_clip(tmp_path / "videos" / "2.mp4", 10, 8)
    make_clip(tmp_path / "elsewhere" / "x.mp4", 11, 8)
    (tmp_path / "videos.txt").write_text("videos/2.mp4\r\nvideos\\10.mp4\r\nelsewhere/x.mp4\r\n\r\n")
    (tmp_path / "prompts.txt").write_text("two\nten\nx\n")
    manifest = scan_motion(tmp_path, None, SIZE, 9, 8, max_segments=1)
    assert [(item.source.path.name, item.caption) for item in manifest.items] == [("x.mp4", "x"), ("2.mp4", "two"), ("10.mp4", "ten")]


def test_motion_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"num_frames is 8; it must be 4 \* k \+ 1"):
        scan_motion(tmp_path, "x", SIZE, 8, 8, frame_multiple=4)
    with pytest.raises(ValueError, match="max_segments is 0"):
        scan_motion(tmp_path, "x", SIZE, 9, 8, max_segments=0)
