"""Reading refuses every damaged file; writing plays, is atomic, and names the cure when it fails."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy
import pytest
import torch
from PIL import Image

from dualreal_core.errors import InputError
from dualreal_core.files.atomic import atomic_path
from dualreal_core.video import decode_frames, probe_video, read_video, write_gif, write_mp4, write_png

SUFFIXES = [".mp4", ".mov", ".avi", ".webm", ".gif"]


def moving_frames(num_frames: int, height: int = 64, width: int = 96) -> torch.Tensor:
    """A bright square that steps right over a shaded ground, (F, 3, H, W) in [-1, 1]."""
    frames = torch.linspace(-0.6, 0.2, width).expand(num_frames, 3, height, width).clone()
    for index in range(num_frames):
        left = 2 * index % (width - 16)
        frames[index, :2, 16:40, left : left + 16] = 0.9
    return frames


def ffmpeg(*options: str) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def make_clip(path: Path, num_frames: int = 25, fps: float = 25, height: int = 256, width: int = 384) -> Path:
    source = path.with_name(f"source_of_{path.name}.mp4")
    write_mp4(source, moving_frames(num_frames, height, width), fps)
    codec = {".avi": ["-c:v", "mpeg4", "-q:v", "3"], ".webm": ["-c:v", "libvpx", "-b:v", "1M", "-deadline", "realtime"]}
    ffmpeg("-i", str(source), *codec.get(path.suffix, ["-c", "copy"] if path.suffix != ".gif" else []), str(path))
    source.unlink()
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_container_reads_whole(tmp_path, suffix):
    path = make_clip(tmp_path / f"clip{suffix}")
    clip = read_video(path)
    assert clip.frames.shape == (25, 3, 256, 384) and clip.frames.dtype == torch.uint8
    assert clip.fps == pytest.approx(25, rel=0.02)
    truth = (moving_frames(25, 256, 384) + 1) * 127.5
    coarse = torch.nn.functional.avg_pool2d(clip.frames.float() - truth, 8)  # GIF dithers
    assert coarse.abs().mean() < 5


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_off_files_are_refused(tmp_path, suffix, share):
    path = make_clip(tmp_path / f"clip{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"clip\..*encode it anew"):
        read_video(path)


@pytest.mark.parametrize("content", [b"", b"just some words\n" * 40, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"])
def test_what_is_no_video_is_refused(tmp_path, content):
    path = tmp_path / "words.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"words\.mp4"):
        read_video(path)


def test_a_file_of_sound_alone_is_refused(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", str(tmp_path / "sound.mp4"))
    with pytest.raises(InputError, match=r"sound\.mp4 cannot be read as a video \(it holds no picture"):
        probe_video(tmp_path / "sound.mp4")


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "nowhere.mp4", tmp_path):
        with pytest.raises(InputError, match="check the path"):
            read_video(path)


def test_damaged_middle_is_refused(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    whole = bytearray(path.read_bytes())
    middle = len(whole) * 3 // 4
    whole[middle : middle + 400] = bytes(400)
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"clip\.mp4"):
        read_video(path)


def test_sound_longer_than_the_picture_is_no_damage(tmp_path):
    silent, path = make_clip(tmp_path / "silent.mp4"), tmp_path / "clip.mp4"
    ffmpeg("-i", str(silent), "-f", "lavfi", "-i", "sine=duration=4", "-c:v", "copy", str(path))
    assert read_video(path).frames.shape[0] == 25


def test_whole_files_that_begin_late_are_no_damage_and_cut_ones_are(tmp_path):
    """Matroska promises when it ends, MP4 how long it is; both after pictures that begin at second 20."""
    plain = make_clip(tmp_path / "plain.mp4", num_frames=50)
    for suffix, codec in ((".mkv", ["-c", "copy"]), (".mp4", ["-c:v", "mpeg4", "-movflags", "+faststart"])):
        path = tmp_path / f"late{suffix}"
        ffmpeg("-i", str(plain), *codec, "-output_ts_offset", "20", str(path))
        assert probe_video(path).duration == pytest.approx(2)
        whole = path.read_bytes()
        for length in range(len(whole) // 2, len(whole) - 1000, len(whole) // 20):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"late\..*encode it anew"):
                probe_video(path)


def test_a_file_cut_between_two_frames_that_begins_late_is_refused(tmp_path):
    plain, path = make_clip(tmp_path / "plain.mp4", num_frames=50), tmp_path / "late.mov"
    ffmpeg("-i", str(plain), "-c:v", "mjpeg", "-movflags", "+faststart", "-output_ts_offset", "20", str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\xff\xd8\xff", 0, len(whole) * 2 // 3)])
    with pytest.raises(InputError, match=r"cut off after 1\.\d+ s of 2\.00 s"):
        probe_video(path)


def test_a_picture_that_changes_its_size_midway_keeps_its_order(tmp_path):
    """As in recorded calls: frame i is a grey of level 12 i, and the last ten are smaller."""
    pieces = []
    for first, size in ((0, (240, 320)), (10, (120, 160))):
        levels = torch.arange(first, first + 10) * 12 / 127.5 - 1
        source, piece = tmp_path / f"{first}.mp4", tmp_path / f"{first}.webm"
        write_mp4(source, levels[:, None, None, None].expand(10, 3, *size), 10)
        ffmpeg("-i", str(source), "-vf", f"scale={size[1]}:{size[0]}", "-c:v", "libvpx", "-b:v", "900k", str(piece))
        pieces.append(f"file {piece.name}\n")
    (tmp_path / "pieces.txt").write_text("".join(pieces))
    path = tmp_path / "call.webm"
    ffmpeg("-f", "concat", "-i", str(tmp_path / "pieces.txt"), "-c", "copy", str(path))
    probe = probe_video(path)
    assert (probe.num_frames, probe.height, probe.width) == (20, 240, 320)

    def order(frames: torch.Tensor) -> list[int]:
        return (frames.float().mean((1, 2, 3)) / 12).round().int().tolist()

    for indices in (range(20), range(5, 15), range(12, 20)):
        assert order(decode_frames(path, indices, (64, 64))) == list(indices)
    whole = read_video(path).frames
    assert whole.shape == (20, 3, 240, 320) and order(whole) == list(range(20))


def test_rotation_is_applied(tmp_path):
    plain, path = make_clip(tmp_path / "plain.mp4", num_frames=4), tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", str(plain), "-c", "copy", str(path))
    turned = read_video(path).frames
    assert turned.shape == (4, 3, 384, 256)
    expected = torch.rot90(read_video(plain).frames, 1, (2, 3))
    assert (turned.float() - expected.float()).abs().mean() < 2


def test_wide_pixels_are_shown_wide(tmp_path):
    plain, path = make_clip(tmp_path / "plain.mp4", num_frames=4), tmp_path / "wide.mp4"
    ffmpeg("-i", str(plain), "-vf", "setsar=3/2", str(path))
    assert read_video(path).frames.shape == (4, 3, 256, 576)


def test_size_covers_and_crops_the_centre(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", num_frames=4)
    square = decode_frames(path, range(4), (128, 128))
    assert square.shape == (4, 3, 128, 128)
    whole = torch.nn.functional.interpolate(read_video(path).frames.float(), size=(128, 192), mode="area")
    assert (square.float() - whole[..., 32:160]).abs().mean() < 3
    assert decode_frames(path, range(4), (33, 65)).shape == (4, 3, 33, 65)


def test_windows_and_repeated_indices(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    whole = read_video(path).frames
    assert torch.equal(decode_frames(path, range(7, 12), (256, 384)), whole[7:12])
    assert torch.equal(decode_frames(path, [20, 3, 3], (256, 384)), whole[[20, 3, 3]])
    with pytest.raises(InputError, match=r"clip\.mp4.*frame 25"):
        decode_frames(path, [24, 30], (256, 384))


def test_large_clips_need_a_smaller_size(tmp_path, monkeypatch):
    monkeypatch.setattr("dualreal_core.video.reading.MAX_DECODED_BYTES", 10**6)
    path = make_clip(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="smaller size"):
        read_video(path)


@pytest.mark.parametrize(
    ("shape", "written"), [((32, 32), (256, 256)), ((33, 21), (264, 168)), ((301, 203), (302, 204)), ((480, 720), (480, 720))]
)
def test_mp4_sizes_play(tmp_path, shape, written):
    path = tmp_path / "new" / "out.mp4"
    write_mp4(path, moving_frames(3, *shape) if shape[0] > 40 else torch.zeros(3, 3, *shape), 8)
    probe = probe_video(path)
    assert (probe.height, probe.width) == written and probe.num_frames == 3 and probe.fps == pytest.approx(8)
    assert b"avc1" in path.read_bytes()


def test_mp4_keeps_colours(tmp_path):
    colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-0.2, 0.4, 0.9]])[:, :, None, None].expand(3, 3, 64, 64)
    write_mp4(tmp_path / "out.mp4", colours, 8)
    read = read_video(tmp_path / "out.mp4").frames.float().mean((2, 3))
    assert (read - (colours.mean((2, 3)) + 1) * 127.5).abs().max() < 6


def test_gif_keeps_its_duration(tmp_path):
    write_gif(tmp_path / "out.gif", moving_frames(16, 32, 40), 8)
    clip = probe_video(tmp_path / "out.gif")
    assert clip.duration == pytest.approx(2.0) and clip.num_frames == 16
    assert (clip.height, clip.width) == (224, 280)


def test_png_is_exact(tmp_path):
    pixels = torch.randint(0, 256, (3, 7, 5), generator=torch.Generator().manual_seed(0))
    write_png(tmp_path / "out.png", pixels / 127.5 - 1)
    assert torch.equal(torch.from_numpy(numpy.array(Image.open(tmp_path / "out.png"))).permute(2, 0, 1).long(), pixels)


@pytest.mark.parametrize("fps", [0, -3, 0.0001, 241, float("nan"), float("inf")])
@pytest.mark.parametrize("write", [write_mp4, write_gif])
def test_frame_rates_that_no_file_can_have(tmp_path, write, fps):
    with pytest.raises(InputError, match=r"The frame rate is .*; choose 0\.1 to 240"):
        write(tmp_path / "out.video", torch.zeros(2, 3, 16, 16), fps)
    assert list(tmp_path.iterdir()) == []


def test_wrong_shape_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\(F, 3, H, W\)"):
        write_mp4(tmp_path / "out.mp4", torch.zeros(3, 8, 8), 8)


@pytest.mark.parametrize("write", [write_mp4, write_gif])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "can write to")]
)
def test_failed_writes_leave_the_old_file(tmp_path, monkeypatch, write, number, words):
    path = tmp_path / f"out.{write.__name__[-3:]}"
    path.write_bytes(b"old")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match=rf"{path.name}.*{words}"):
        write(path, torch.zeros(2, 3, 16, 16), 8)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_full_device_is_reported_by_ffmpeg_too(tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr("dualreal_core.files.atomic.secrets.token_hex", lambda count: "fixed")
    (tmp_path / ".out.fixed.mp4").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"out\.mp4 could not be written"):
        write_mp4(tmp_path / "out.mp4", torch.zeros(2, 3, 64, 64), 8)
    assert list(tmp_path.iterdir()) == []


def test_atomic_path_cleans_up_and_passes_other_errors(tmp_path):
    path = tmp_path / "deep" / "out.bin"
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        assert temporary.suffix == ".bin" and temporary.parent == path.parent
        temporary.write_bytes(b"half")
        raise KeyError("stop")
    assert list(path.parent.iterdir()) == []
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(InputError, match="in the way"):
        write_png(tmp_path / "taken" / "out.png", torch.zeros(3, 8, 8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="in the way"):
        write_png(tmp_path / "folder.png", torch.zeros(3, 8, 8))
