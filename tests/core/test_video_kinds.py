"""Video files as people have them: each is read as players show it, or refused for the true reason."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy
import pytest
import torch
from media import blocks, reasons, save
from PIL import Image
from test_video import ffmpeg

from dualreal_core.commands.evaluate import find_files
from dualreal_core.dataset import scan_motion
from dualreal_core.dataset.photos import open_photo
from dualreal_core.errors import InputError
from dualreal_core.video import ClipProbe, decode_clip, probe_video, read_video, write_gif, write_mp4
from dualreal_core.video.color import Color, to_sdr
from dualreal_core.video.verdict import Decoding, judge

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
COLOURS = torch.tensor([[0.9, 0.2, 0.1], [0.1, 0.7, 0.3], [0.5, 0.5, 0.5], [0.2, 0.3, 0.8]])
"""Of the four quarters of a picture, in [0, 1]."""


def quarters(num_frames: int, height: int = 64, width: int = 96) -> torch.Tensor:
    """(F, 3, H, W) in [-1, 1], each quarter one of COLOURS."""
    board = COLOURS.reshape(2, 2, 3).permute(2, 0, 1)
    picture = board.repeat_interleave(height // 2, 1).repeat_interleave(width // 2, 2)
    return (picture * 2 - 1).expand(num_frames, 3, height, width)


def quarter_means(frames: torch.Tensor) -> torch.Tensor:
    """(F, 3, H, W) uint8 -> (4, 3): the middle of each quarter, in [0, 1]."""
    height, width = frames.shape[2] // 2, frames.shape[3] // 2
    parts = [frames[:, :, top + 8 : top + height - 8, left + 8 : left + width - 8] for top in (0, height) for left in (0, width)]
    return torch.stack([part.float().mean((0, 2, 3)) / 255 for part in parts])


def plain(folder: Path, num_frames: int = 20, fps: float = 10, size: tuple[int, int] = (256, 384)) -> Path:
    write_mp4(folder / "plain.mp4", quarters(num_frames, *size), fps)
    return folder / "plain.mp4"


def test_a_cover_or_thumbnail_before_the_picture_is_passed_over(tmp_path):
    clip = plain(tmp_path)
    save(tmp_path / "cover.png", blocks(64, 64, 1))
    small = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=2"]
    ffmpeg("-i", str(tmp_path / "cover.png"), "-i", str(clip), "-map", "0", "-map", "1", "-c:v:0", "png", "-c:v:1", "copy",
           "-disposition:v:0", "attached_pic", str(tmp_path / "cover.mp4"))  # fmt: skip
    ffmpeg("-i", str(tmp_path / "cover.png"), "-i", str(clip), "-map", "0", "-map", "1", "-c:v:0", "mjpeg", "-c:v:1", "copy",
           str(tmp_path / "thumbnail.mov"))  # fmt: skip
    ffmpeg(*small, "-i", str(clip), "-map", "0", "-map", "1", "-c:v:0", "mjpeg", "-c:v:1", "copy", str(tmp_path / "preview.mkv"))
    for name in ("cover.mp4", "thumbnail.mov", "preview.mkv"):
        probe = probe_video(tmp_path / name)
        assert (probe.num_frames, probe.height, probe.width) == (20, 256, 384), name
        assert probe.remarks[0].startswith("of its 2 picture streams number ") and probe.remarks[0].endswith(" is used (384x256)")
        assert (quarter_means(decode_clip(tmp_path / name, [3], (64, 96))[0].permute(0, 3, 1, 2)) - COLOURS).abs().max() < 0.04
    manifest = scan_motion(tmp_path, "x", (64, 64), 9, 10)
    assert len(manifest.report.used) == 4 and any(note.startswith("cover.mp4: of its 2 picture streams") for note in manifest.report.notes)


def test_sound_with_a_cover_is_no_video(tmp_path):
    save(tmp_path / "cover.png", blocks(64, 64, 1))
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-i", str(tmp_path / "cover.png"), "-map", "0", "-map", "1", "-c:v", "png",
           "-disposition:v", "attached_pic", str(tmp_path / "song.mp4"))  # fmt: skip
    with pytest.raises(InputError, match=r"song\.mp4 cannot be read as a video \(it holds a cover picture, only sound"):
        probe_video(tmp_path / "song.mp4")


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_hdr_is_shown_as_sdr(tmp_path, transfer):
    """SDR that was put into HDR at the reference white of 203 cd/m2 comes back."""
    clip, path = plain(tmp_path, 4, size=(128, 192)), tmp_path / "hdr.mov"
    linear = "format=gbrp,zscale=tin=bt709:pin=bt709:min=gbr:t=linear:npl=203:p=bt2020,format=gbrpf32le"
    ffmpeg("-i", str(clip), "-vf", f"{linear},zscale=t={transfer}:m=bt2020nc:r=tv:npl=203,format=yuv420p10le", "-c:v", "libx265",
           "-x265-params", "log-level=none", str(path))  # fmt: skip
    shown = read_video(path).frames
    assert (quarter_means(shown) - COLOURS).abs().max() < 0.06
    assert (shown.float() - read_video(clip).frames.float()).abs().mean() < 12
    assert probe_video(path).remarks == (f"HDR ({'HLG' if transfer == 'arib-std-b67' else 'PQ'}), tone-mapped to SDR",)


def test_highlights_are_rolled_off_and_greys_stay_grey():
    for color in (Color("bt2020nc", "bt2020", "arib-std-b67"), Color("bt2020nc", "bt2020", "smpte2084")):
        ramp = numpy.linspace(0, 49152, 64).astype(numpy.uint16)  # PQ reaches 1000 cd/m2 at three quarters
        shown = to_sdr(numpy.repeat(ramp[:, None], 3, axis=1), color).astype(int)
        assert numpy.ptp(shown, axis=1).max() <= 1 and (numpy.diff(shown[:, 0]) >= 0).all()
        assert len(set(shown[-16:, 0])) > 3, "different highlights stay different"


def test_wide_gamut_and_unmarked_files_of_high_definition(tmp_path):
    narrow = numpy.array([[0.6274, 0.0691, 0.0164]]) ** (1 / 2.2)  # BT.709 red in BT.2020 primaries
    assert numpy.abs(to_sdr((narrow * 65535).astype(numpy.uint16), Color("bt2020nc", "bt2020", "bt2020-10")) - [255, 0, 0]).max() <= 12
    assert not Color("bt709", "bt709", "bt709").is_wide and not Color().is_wide
    clip, path = plain(tmp_path, 2, size=(720, 1280)), tmp_path / "unmarked.mp4"
    silent = "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown"
    ffmpeg("-i", str(clip), "-vf", silent, "-preset", "ultrafast", str(path))
    assert (quarter_means(read_video(path).frames) - COLOURS).abs().max() < 0.02


def test_subtitles_that_outlast_the_picture_are_no_cut(tmp_path):
    clip = plain(tmp_path)
    (tmp_path / "words.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nhello\n\n2\n00:00:05,000 --> 00:00:06,000\nbye\n")
    for suffix, codec in ((".mkv", "srt"), (".mp4", "mov_text")):
        path = tmp_path / f"subtitled{suffix}"
        ffmpeg("-i", str(clip), "-i", str(tmp_path / "words.srt"), "-map", "0", "-map", "1", "-c:v", "copy", "-c:s", codec, str(path))
        assert probe_video(path).duration == pytest.approx(2, abs=0.01)


def test_a_copy_that_begins_in_an_open_group_of_pictures_is_whole(tmp_path):
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=30:duration=3"]
    options = "open-gop=1:keyint=30:min-keyint=30:bframes=3:b-pyramid=normal:scenecut=0"
    ffmpeg(*source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-x264-params", options, str(tmp_path / "whole.mp4"))
    for suffix in (".mp4", ".mkv"):
        path = tmp_path / f"copy{suffix}"
        ffmpeg("-ss", "1.05", "-i", str(tmp_path / "whole.mp4"), "-c", "copy", str(path))
        probe = probe_video(path)
        assert 55 <= probe.num_frames <= 64 and probe.fps == pytest.approx(30, rel=0.01)
        assert probe.remarks == ("whole, though its decoder says 'mmco: unref short failure'",)
        assert len(read_video(path).frames) == probe.num_frames


def decoding(**changes: object) -> Decoding:
    frames = [(index / 10, 0.1) for index in range(10)]
    usual = {"frames": frames, "packets": [start for start, _ in frames], "reach": 1.0, "promised": 1.0, "begin": 0.0, "num_broken": 0,
             "complaints": [], "is_short": False, "height": 4, "width": 6}  # fmt: skip
    return Decoding(**{**usual, **changes})


def test_the_frames_are_the_verdict_and_not_what_the_decoder_says():
    assert judge("a", "a", decoding(complaints=["bad"])).remarks == ("whole, though its decoder says 'bad'",)
    early = [-0.2, -0.1, *decoding().packets]
    assert judge("a", "a", decoding(complaints=["bad"], packets=early)).num_frames == 10
    for changes, words in (
        ({"num_broken": 1}, r"damaged: 1 of 10 frames broken \(corrupt frame\)"),
        ({"complaints": ["bad"], "frames": decoding().frames[:4] + decoding().frames[5:]}, r"damaged: 1 frames cannot be decoded \(bad\)"),
        ({"promised": 2.0}, r"cut off after 1\.00 s of 2\.00 s"),
        ({"promised": 1.15, "is_short": True}, "cut off"),
        ({"promised": 1.15, "complaints": ["File ended prematurely"]}, "cut off"),
        ({"frames": [], "complaints": ["bad"]}, r"holds no video frames \(bad\)"),
        ({"frames": [(0.0, 0.1), (1e6, 0.1)]}, "hours apart"),
    ):
        with pytest.raises(InputError, match=words):
            judge("a", "a", decoding(**changes))
    assert judge("a", "a", decoding(promised=1.15)).num_frames == 10
    assert judge("a", "a", decoding(promised=2.0, reach=2.0)).num_frames == 10


def test_the_rate_is_that_of_the_frames():
    def probe(*times: float, duration: float) -> ClipProbe:
        return ClipProbe(times, duration, 4, 4)

    even = probe(*(index / 25 for index in range(50)), duration=2.0)
    assert even.fps == 25 and even.shown == list(range(50))
    holed = probe(*(index / 30 for index in range(31) if index not in (7, 8, 9)), duration=31 / 30)
    assert holed.fps == pytest.approx(30) and holed.num_frames == 31 and holed.shown[5:12] == [5, 6, 6, 6, 6, 7, 8]
    uneven = probe(0.0, 0.03, 0.2, 0.21, 0.5, 0.9, duration=1.0)
    assert uneven.fps == 6 and uneven.shown == list(range(6))
    assert probe(0.0, duration=0.04).num_frames == 1
    centiseconds = probe(0.0, 0.07, 0.13, 0.2, 0.27, 0.33, duration=0.4)
    assert centiseconds.fps == pytest.approx(15) and centiseconds.num_frames == 6
    held = probe(*(index / 10 for index in range(10)), duration=2.0)
    assert held.fps == pytest.approx(10) and held.shown[8:] == [8, *[9] * 11]


def test_a_browser_recording_has_the_times_of_its_frames(tmp_path):
    """As from a browser: frames when something moved, ticks of a millisecond, no rate and no length in the header."""
    clip, path = plain(tmp_path, 40, 16, (96, 96)), tmp_path / "recorder.webm"
    uneven = "setpts='(N*0.0625+0.02*mod(N*7,3)/3)/TB',settb=1/1000"
    codec = ["-c:v", "libvpx", "-deadline", "realtime", "-live", "1"]
    ffmpeg("-i", str(clip), "-vf", uneven, "-fps_mode", "passthrough", "-enc_time_base", "1:1000", *codec, str(path))
    probe = probe_video(path)
    assert probe.num_frames == 40 and 2.4 < probe.duration < 2.6 and probe.fps == pytest.approx(16, rel=0.05)
    manifest = scan_motion(tmp_path, "x", (64, 64), 49, 16)
    assert any(note.startswith("recorder.webm has 4") and "frames at 16 fps" in note for note in manifest.report.notes)


def alpha_clip(path: Path, *options: str, palette: str = "", seconds: float = 0.5) -> Path:
    """Four frames, the left half red and opaque, the right half transparent over hidden green."""
    right = "if(lt(X,48),{},{})"
    shape = f"format=rgba,geq=r='{right.format(220, 0)}':g='{right.format(20, 255)}':b='{right.format(20, 0)}':a='{right.format(255, 0)}'"
    ffmpeg("-f", "lavfi", "-i", f"color=size=96x64:rate=8:duration={seconds}", "-vf", shape + palette, *options, str(path))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vp9.webm", ["-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"]),
        ("vp8.mkv", ["-c:v", "libvpx", "-auto-alt-ref", "0", "-b:v", "2M", "-pix_fmt", "yuva420p"]),
        ("prores.mov", ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"]),
        ("animation.mov", ["-c:v", "qtrle"]),
        ("palette.gif", []),
    ],
)
def test_transparent_clips_show_grey_and_tell_the_subject_as_photos_do(tmp_path, name, options):
    palette = ",split[a][b];[a]palettegen=reserve_transparent=1[p];[b][p]paletteuse" if name.endswith(".gif") else ""
    path = alpha_clip(tmp_path / name, *options, palette=palette)
    frames, subject = decode_clip(path, range(probe_video(path).num_frames), (64, 96))
    pixels = numpy.zeros((64, 96, 4), numpy.uint8)
    pixels[:, :48], pixels[:, 48:] = (220, 20, 20, 255), (0, 255, 0, 0)
    photo = open_photo(save(tmp_path / "photo.png", pixels))
    inner = (slice(8, 56), [*range(8, 40), *range(56, 88)])
    assert len(frames) >= 1 and (frames[0].float() - photo.picture.float())[inner].abs().max() < 14
    assert torch.equal(subject[0][inner] > 127, photo.subject[inner] > 127)
    assert decode_clip(path, [0], (32, 32))[1].shape == (1, 32, 32)


def test_opaque_clips_have_no_subject(tmp_path):
    """And their colours are untouched."""
    board = blocks(64, 96, 3)
    Image.fromarray(board).quantize(16).save(tmp_path / "a.gif")
    frames, subject = decode_clip(tmp_path / "a.gif", [0], (64, 96))
    assert subject is None and torch.equal(frames[0], torch.from_numpy(numpy.array(Image.open(tmp_path / "a.gif").convert("RGB"))))
    assert decode_clip(plain(tmp_path), [0], (64, 64))[1] is None


def older_ffmpeg(path: Path, unknown: str, instead: str = "") -> Path:
    """An ffmpeg that does not know an option, or has another name for it."""
    path.write_text(
        f"#!{sys.executable}\nimport os, sys\ngiven = sys.argv[1:]\n"
        "if given[:1] == ['-version']:\n    print('ffmpeg version 4.0.2-ancient Copyright')\n    sys.exit()\n"
        f"if {unknown!r} in given:\n    sys.exit(\"Unrecognized option '\" + {unknown[1:]!r} + \"'.\\nOption not found\")\n"
        f"os.execv({FFMPEG!r}, ['ffmpeg', *({unknown!r} if {instead!r} == one else one for one in given)])\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_an_ffmpeg_of_before_5_1_reads_and_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(older_ffmpeg(tmp_path / "old", "-fps_mode", instead="-vsync")))
    path = plain(tmp_path, 6)
    assert read_video(path).frames.shape == (6, 3, 256, 384)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_an_ffmpeg_that_lacks_something_is_named_with_its_version(tmp_path, monkeypatch):
    path = plain(tmp_path, 3)
    for option in ("-enc_time_base", "-reinit_filter", "-crf"):
        ancient = older_ffmpeg(tmp_path / f"old{option}", option)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ancient))
        with pytest.raises(InputError, match=rf"ffmpeg 4\.0\.2-ancient \(.*\) does not know '{option[1:]}', .*use ffmpeg 4\.2 or newer"):
            read_video(path)
            write_mp4(tmp_path / "new.mp4", quarters(2), 8)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"ffmpeg cannot be run .*gone.*IMAGEIO_FFMPEG_EXE"):
        probe_video(path)


def test_a_wrong_length_in_the_header_is_no_cut_where_all_frames_are_there(tmp_path):
    clip, path = plain(tmp_path), tmp_path / "clip.avi"
    ffmpeg("-i", str(clip), "-c:v", "mpeg4", str(path))
    whole = path.read_bytes()
    for declared in (len(whole), len(whole) + 100_000, 0):
        path.write_bytes(whole[:4] + struct.pack("<I", declared) + whole[8:])
        assert probe_video(path).num_frames == 20
    path.write_bytes(whole[: whole.rindex(b"00dc", 0, len(whole) * 19 // 20)])
    with pytest.raises(InputError, match=r"clip\.avi"):
        probe_video(path)


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"some words\x2c\x21 behind the end" * 9])
def test_bytes_behind_the_end_of_a_gif_are_no_cut(tmp_path, tail):
    path = tmp_path / "a.gif"
    write_gif(path, quarters(5), 10)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert probe_video(path).num_frames == probe_video(path).num_frames and probe_video(path).duration == pytest.approx(0.5)
    path.write_bytes(whole[:-40] + tail)
    with pytest.raises(InputError, match=r"a\.gif is cut off"):
        probe_video(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_devices_and_loops_named_like_clips_are_told_and_nothing_waits(tmp_path):
    plain(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, words in (("pipe", "a pipe"), ("device", "a device"), ("loop", "a link that leads nowhere"), ("folder", "a folder")):
        with pytest.raises(InputError, match=rf"{name}\.mp4 is {words}"):
            probe_video(tmp_path / f"{name}.mp4")
    manifest = scan_motion(tmp_path, "x", (64, 64), 9, 10)
    assert manifest.report.used == ("plain.mp4",)
    assert reasons(manifest) == {
        "pipe.mp4": "unreadable: it is a pipe, not a file",
        "device.mp4": "unreadable: it is a device, not a file",
        "loop.mp4": "unreadable: it is a link that leads nowhere",
    }
    assert "not looked into: the folder folder.mp4" in manifest.report.notes
    assert {path.name for path in find_files([tmp_path], (".mp4",), "video")} == {"plain.mp4", "pipe.mp4", "device.mp4", "loop.mp4"}


def test_a_gif_plays_at_50_frames_per_second_at_most(tmp_path):
    frames = torch.stack([quarters(1)[0] * (1 - index / 30) for index in range(24)])
    for fps, shown in ((60, 50), (240, 50), (50, 50), (24, 24)):
        assert write_gif(tmp_path / "a.gif", frames, fps) == shown
        probe = probe_video(tmp_path / "a.gif")
        assert probe.duration == pytest.approx(24 / shown, abs=0.011) and probe.num_frames == 24


def test_interlaced_clips_lose_their_combs(tmp_path):
    """Two fields of different moments: every other line of a moving bar lags behind."""
    path = tmp_path / "interlaced.mkv"
    bar = "color=white:size=96x64:rate=50:duration=0.4,geq=lum='if(between(X,8*N,8*N+15),235,16)':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", bar, "-vf", "interlace=lowpass=0", "-flags", "+ilme+ildct", "-c:v", "mpeg2video", "-q:v", "2", str(path))
    frames = decode_clip(path, [4], (64, 96))[0].float()
    combs = (frames[:, 1:-1] - (frames[:, :-2] + frames[:, 2:]) / 2).abs().mean()
    assert combs < 4, combs
