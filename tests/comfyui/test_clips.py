"""Video files as people have them, in Motion Dataset and Evaluate: used or skipped for the true reason, which names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from comfy_server import ComfyServer
from graphs import Graph, node, save
from media import blocks
from media import save as save_picture
from test_bad_graphs import assert_lives_on, failure
from test_video import ffmpeg
from test_video_kinds import alpha_clip, quarters

from dualreal_core.video import write_gif, write_mp4

SIZE = {"width": 96, "height": 64}


def motion(folder: str, **inputs: object) -> Graph:
    """The report is shown by node `report`, the latents are kept by `latents`."""
    unreadable = inputs.pop("with_unreadable", False)
    settings = {"frames": 97, "fps": 0.0, "max_segments": 1, "texts": ["words", 0], **SIZE, **inputs}
    return {
        "base": node("DualRealLoadEmbeddedModel"),
        "clips": node("BenchClips", folder=folder, with_unreadable=unreadable),
        "words": node("PrimitiveString", value="a square"),
        "data": node("DualRealMotionDataset", videos=["clips", 0], vae=["base", 2], clip=["base", 1], **settings),
        "report": node("PreviewAny", source=["data", 3]),
        "latents": save(["data", 0]),
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "plain.mp4"
    write_mp4(path, quarters(20, 256, 384), 10)
    return path


@pytest.fixture(scope="module")
def report(server: ComfyServer, plain: Path) -> str:
    """Of a folder of all kinds."""
    folder = server.base / "input" / "kinds"
    folder.mkdir(parents=True)
    cover = save_picture(plain.with_name("cover.png"), blocks(64, 64, 1))
    words = plain.with_name("words.srt")
    words.write_text("1\n00:00:00,500 --> 00:00:01,500\nhello\n\n2\n00:00:05,000 --> 00:00:06,000\nbye\n")
    ffmpeg("-i", str(cover), "-i", str(plain), "-map", "0", "-map", "1", "-c:v:0", "mjpeg", "-c:v:1", "copy", str(folder / "cover.mov"))
    ffmpeg("-i", str(plain), "-i", str(words), "-map", "0", "-map", "1", "-c:v", "copy", "-c:s", "srt", str(folder / "subtitles.mkv"))
    uneven = "setpts='(N*0.1+0.03*mod(N*7,3)/3)/TB',settb=1/1000"
    ffmpeg("-i", str(plain), "-vf", uneven, "-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-c:v", "libvpx", "-live", "1",
           str(folder / "recorder.webm"))  # fmt: skip
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", str(folder / "sound.mp4"))
    write_gif(folder / "tail.gif", torch.stack([quarters(1)[0] * (1 - index / 20) for index in range(12)]), 10)
    (folder / "tail.gif").write_bytes((folder / "tail.gif").read_bytes() + b"more")
    (folder / "cut.gif").write_bytes((folder / "tail.gif").read_bytes()[:-60])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "words.mp4").write_bytes(b"only words " * 99)
    ffmpeg("-i", str(plain), "-c:v", "prores_ks", str(folder / "damaged.mov"))
    whole = bytearray((folder / "damaged.mov").read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 400] = bytes(400)
    (folder / "damaged.mov").write_bytes(whole)
    os.mkfifo(folder / "pipe.mp4")
    return server.run(motion("kinds")).text("report")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.gif", "cut.gif is cut off"),
        ("damaged.mov", "is damaged: 1 of 20 frames broken"),
        ("empty.mp4", "is empty"),
        ("pipe.mp4", "is a pipe, not a file"),
        ("sound.mp4", "holds no picture"),
        ("words.mp4", "cannot be read as a video"),
    ],
)
def test_a_clip_that_cannot_be_used_is_skipped_by_name(report: str, name: str, words: str) -> None:
    [line] = [line for line in report.splitlines() if line.startswith("skipped") and f"({name})" in line]
    assert words in line


def test_the_others_are_used_and_their_oddities_told(report: str) -> None:
    assert "4 of 10 videos used" in report, report
    assert "(cover.mov): of its 2 picture streams number" in report and "is used (384x256)" in report


def test_what_other_nodes_raise_or_give_in_place_of_a_video_is_told(server: ComfyServer, plain: Path) -> None:
    folder = server.base / "input" / "one"
    folder.mkdir()
    (folder / "plain.mp4").write_bytes(plain.read_bytes())
    report = server.run(motion("one", with_unreadable=True)).text("report")
    assert "1 of 4 videos used" in report
    assert "skipped video 2: unreadable: video 2 cannot be read (KeyError: 'stream 0')" in report
    assert "video 3 is no video but NoneType" in report
    assert "skipped video 4: unreadable: no frame of it could be decoded" in report


def test_image_to_video_needs_the_vae_of_such_a_model(server: ComfyServer, report: str) -> None:
    found, message = failure(server, motion("kinds", image_to_video=True))
    assert found == "data" and "the VAE (ToyVideoCodec, 16 channels) is of no image-to-video model that is known here" in message


def test_a_recording_keeps_its_time(server: ComfyServer, report: str) -> None:
    """2 s at 8 frames per second; by its header of 1000 frames per second it would have one frame."""
    folder = server.base / "input" / "recording"
    folder.mkdir()
    (folder / "recorder.webm").write_bytes((server.base / "input" / "kinds" / "recorder.webm").read_bytes())
    said = server.run(motion("recording", fps=8.0, frames=9)).text("report")
    assert "9 frames of 96x64 px: 1 sample" in said and "resampled to 8 fps" in said
    assert "used at 17 frames instead of 97" in server.run(motion("recording", fps=8.0)).text("report")


@pytest.mark.parametrize("kind", ["hlg", "alpha", "turned"])
def test_a_clip_looks_as_players_show_it(server: ComfyServer, plain: Path, kind: str) -> None:
    """Held against a plain clip of the same look, by their latents: the embedded model's VAE keeps pictures nearly as they are."""
    folder, like = server.base / "input" / kind, server.base / "input" / f"like {kind}"
    folder.mkdir()
    like.mkdir()
    shown = quarters(20, 256, 384)
    if kind == "hlg":
        linear = "format=gbrp,zscale=tin=bt709:pin=bt709:min=gbr:t=linear:npl=203:p=bt2020,format=gbrpf32le"
        hdr = f"{linear},zscale=t=arib-std-b67:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
        ffmpeg("-i", str(plain), "-vf", hdr, "-c:v", "libx265", "-x265-params", "log-level=none", str(folder / "a.mov"))
    elif kind == "alpha":
        alpha_clip(folder / "a.webm", "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", seconds=1.5)
        halves = torch.tensor([[220, 20, 20], [128, 128, 128]]).T[:, None].repeat_interleave(192, 2)
        shown = halves.expand(20, 3, 256, 384) / 127.5 - 1
    else:
        ffmpeg("-display_rotation", "180", "-display_hflip", "-i", str(plain), "-c", "copy", str(folder / "a.mp4"))
        shown = shown.flip(2)
    write_mp4(like / "a.mp4", shown, 10)
    latents = [server.tensors(server.run(motion(name, frames=9)), "latents")["0.samples"] for name in (kind, like.name)]
    difference = (latents[0][:, :, 0] - latents[1][:, :, 0]).abs().mean() / latents[1].std()
    assert difference < 0.08, difference


def test_evaluate_names_the_clip_that_it_cannot_read(server: ComfyServer, report: str) -> None:
    image = node("EmptyImage", width=32, height=32, batch_size=2, color=0)
    given = {"images": ["image", 0], "identity_references": ["image", 0], "motion_references": ["clips", 0], "metric": "toy world"}
    graph = {
        "image": image,
        "clips": node("BenchClips", folder="kinds", with_unreadable=False),
        "check": node("DualRealEvaluate", **given),
        "shown": node("PreviewAny", source=["check", 4]),
    }
    found, message = failure(server, graph)
    assert found == "check" and "cut.gif" in message and "\n" not in message, message
    vision = {"vision": node("BenchBrokenVision"), "clips": node("BenchClips", folder="recording", with_unreadable=False)}
    given |= {"metric": "embedding", "clip_vision": ["vision", 0]}
    found, message = failure(server, graph | vision | {"check": node("DualRealEvaluate", **given)})
    assert found == "check" and "clip_vision cannot encode the frames (KeyError: 'image_embeds')" in message, message
    found, message = failure(server, motion("recording", clip_vision=["vision", 0]) | {"vision": vision["vision"]})
    assert found == "data" and "recorder.webm" in message, message
    assert_lives_on(server)
