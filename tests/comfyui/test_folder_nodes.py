"""Load Photos and Load Clips on the real host, and what our dataset nodes make of folders that stock loaders read."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path

import numpy
import pytest
import torch
from comfy_run import PromptRejected, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from PIL import Image

from dualreal_core.video import write_mp4

SIZES = {"width": 32, "height": 32}
MAC_NOTE = b"\0\5\x16\7\0\2\0\0Mac OS X        "
UPRIGHT_BY_A_TURN = {0x0112: 6}


def board(height: int, width: int, seed: int, channels: int = 3) -> Image.Image:
    colours = numpy.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=numpy.uint8)
    return Image.fromarray(numpy.kron(colours, numpy.ones((height // 4, width // 4, 1), numpy.uint8)))


@pytest.fixture(scope="module")
def photos(server: ComfyServer) -> Path:
    """Four photos of which one is broken, the others turned, clear in part, and plain; one caption each but for the last."""
    folder = server.base / "input" / "album" / "dog"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    board(48, 64, 1).save(folder / "dog1.jpg", exif=exif)
    clear = numpy.array(board(48, 64, 2, channels=4))
    clear[..., 3] = 255
    clear[:, :32, 3] = 0
    Image.fromarray(clear).save(folder / "dog2.png")
    board(48, 64, 3).save(folder / "dog10.png")
    (folder / "dog3.png").write_text("no picture")
    (folder / "._dog1.jpg").write_bytes(MAC_NOTE)
    (folder / "dog1.TXT").write_bytes("a photo of *\r\n".encode("utf-8-sig"))
    (folder / "dog2.caption").write_text("* on grass")
    return folder


@pytest.fixture(scope="module")
def clips(server: ComfyServer) -> Path:
    folder = server.base / "input" / "album" / "walk"
    folder.mkdir(parents=True)
    for number, shade in {"2": 0.1, "10": 0.4}.items():
        frames = torch.full((9, 3, 64, 64), shade) + torch.linspace(0, 0.5, 9)[:, None, None, None]
        write_mp4(folder / f"walk{number}.mp4", frames, fps=10)
        (folder / f"walk{number}.txt").write_text(f"a man walks {number}")
    (folder / "walk3.mp4").write_text("no clip")
    return folder


def identity(images: list, texts: list, **inputs: object) -> dict:
    coders = {"vae": ["base", 2], "clip": ["base", 1]}
    return node("DualRealIdentityDataset", images=images, texts=texts, num_crops=1, crop_margin=0.0, **coders, **SIZES, **inputs)


def motion(videos: list, texts: list) -> dict:
    settings = {"frames": 9, "fps": 10.0, "max_segments": 1}
    return node("DualRealMotionDataset", videos=videos, texts=texts, vae=["base", 2], clip=["base", 1], **settings, **SIZES)


def loaded_photos(caption: str = "* at home") -> Graph:
    return {
        "base": node("DualRealLoadEmbeddedModel"),
        "photos": node("DualRealLoadPhotos", folder="album/dog", caption=caption, max_side=4096),
        "data": identity(["photos", 0], ["photos", 1], masks=["photos", 2], names=["photos", 3]),
        "report": node("PreviewAny", source=["data", 3]),
    }


def refusal(server: ComfyServer, graph: Graph) -> str:
    with pytest.raises((PromptRejected, RunFailed)) as caught:
        server.run(graph)
    if isinstance(caught.value, RunFailed):
        return caught.value.message
    return " ".join(f"{error['message']} {error['details']}" for wrong in caught.value.node_errors.values() for error in wrong["errors"])


def test_load_photos_loses_nothing_on_the_way_to_the_identity_dataset(server: ComfyServer, photos: Path) -> None:
    graph = loaded_photos() | {"pictures": node("PreviewImage", images=["photos", 0]), "masks": node("MaskPreview", mask=["photos", 2])}
    run = server.run(graph)
    lines = run.text("photos").splitlines()
    assert lines[0] == "3 of 4 files loaded as photos" and lines[-1].startswith("skipped dog3.png: unreadable: "), lines
    sizes = []
    for file in run.files("pictures"):
        path = photos.parents[2] / "temp" / file["filename"]
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert sizes == [(48, 64), (64, 48), (64, 48)], "turned upright, in the order of the names"
    report = run.text("report")
    assert "3 of 3 images used as photos" in report and "1 image carries a subject mask" in report


def test_the_identity_dataset_names_files_that_a_loader_named(server: ComfyServer, photos: Path) -> None:
    board(48, 64, 3).save(photos / "dog11.png", compress_level=0)
    report = server.run(loaded_photos()).text("report")
    (photos / "dog11.png").unlink()
    assert "skipped image 4 (dog11.png): exact duplicate of image 3 (dog10.png)" in report
    message = refusal(server, loaded_photos(caption=""))
    assert "image 3 (dog10.png) has no caption" in message and "\n" not in message.strip(), message


def test_nodes_show_their_pictures_and_what_they_say(server: ComfyServer, photos: Path) -> None:
    """The page shows PreviewText of a few stock nodes only: the text goes to it as progress too."""
    run = server.run(loaded_photos("* shown"))
    for key in ("photos", "data"):
        shown = [preview.image for preview in run.previews if preview.metadata["node_id"] == key]
        assert len(shown) == 3
        shapes = [picture.width / picture.height for picture in map(Image.open, map(BytesIO, shown))]
        assert shapes == sorted(shapes) and shapes[-1] > 2 * shapes[0], "a picture more each time"
        texts = [event.payload["text"] for event in server.socket.events if event.type == "progress_text" and event.payload["node"] == key]
        assert texts[-1] == run.text(key)


def test_a_changed_file_is_noticed(server: ComfyServer, photos: Path) -> None:
    graph = loaded_photos("* first")
    server.run(graph)
    assert "photos" not in server.run(graph).executed_nodes()
    time.sleep(0.05)
    board(48, 64, 9).save(photos / "dog10.png")
    assert "photos" in server.run(graph).executed_nodes()


def test_load_clips_hands_on_what_opens_and_names_the_rest(server: ComfyServer, clips: Path) -> None:
    graph = {
        "base": node("DualRealLoadEmbeddedModel"),
        "clips": node("DualRealLoadClips", folder="album/walk", caption=""),
        "data": motion(["clips", 0], ["clips", 1]),
        "report": node("PreviewAny", source=["data", 3]),
    }
    run = server.run(graph)
    lines = run.text("clips").splitlines()
    assert lines[0] == "2 of 3 files loaded as clips" and lines[-1].startswith("skipped walk3.mp4: unreadable: "), lines
    assert "motion: 2 of 2 videos used as clips, 2 training samples" in run.text("report")


def test_notes_of_macos_among_the_clips_of_a_stock_loader(server: ComfyServer, clips: Path) -> None:
    folder = clips.parent / "mac"
    folder.mkdir()
    for name in ("walk2.mp4", "walk2.txt"):
        (folder / name).write_bytes((clips / name).read_bytes())
    (folder / "._walk2.mp4").write_bytes(MAC_NOTE)
    graph = {
        "base": node("DualRealLoadEmbeddedModel"),
        "clips": node("LoadVideoTextDataSetFromFolder", folder="album/mac"),
        "data": motion(["clips", 0], ["clips", 1]),
        "report": node("PreviewAny", source=["data", 3]),
    }
    report = server.run(graph).text("report")
    assert "1 of 2 videos used as a clip" in report and "skipped video 1 (._walk2.mp4): no clip: a note that macOS keeps" in report


def test_clips_without_a_caption_are_named_by_file(server: ComfyServer, clips: Path) -> None:
    folder = clips.parent / "bare"
    folder.mkdir()
    for name in ("walk2.mp4", "walk2.txt", "walk10.mp4"):
        (folder / name).write_bytes((clips / name).read_bytes())
    graph = {
        "base": node("DualRealLoadEmbeddedModel"),
        "clips": node("LoadVideoTextDataSetFromFolder", folder="album/bare"),
        "data": motion(["clips", 0], ["clips", 1]),
        "report": node("PreviewAny", source=["data", 3]),
    }
    assert "video 1 (walk10.mp4) has no caption" in refusal(server, graph)


@pytest.mark.parametrize("loader", ["DualRealLoadPhotos", "DualRealLoadClips"])
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("nowhere", "has no folder 'nowhere'"),
        ("..", "is no folder below ComfyUI's input folder"),
        ("/", "is no folder below ComfyUI's input folder"),
        ("", "is no folder below ComfyUI's input folder"),
    ],
)
def test_folders_that_are_missing_or_elsewhere_are_refused(server: ComfyServer, loader: str, folder: str, reason: str) -> None:
    inputs = {"max_side": 0} if loader == "DualRealLoadPhotos" else {}
    graph = {"loader": node(loader, folder=folder, caption="", **inputs), "shown": node("PreviewAny", source=["loader", 1])}
    with pytest.raises(PromptRejected) as caught:
        server.run(graph)
    ((_, wrong),) = caught.value.node_errors.items()
    assert any(reason in error["details"] for error in wrong["errors"]), wrong


@pytest.mark.parametrize(
    ("fails", "said"),
    [("vae", "The VAE cannot encode image 1 (dog1.jpg) crop 1 (KeyError"), ("clip", "the caption of image 1 (dog1.jpg) (TypeError")],
)
def test_what_goes_wrong_inside_an_encoder_names_the_file(server: ComfyServer, photos: Path, fails: str, said: str) -> None:
    graph = loaded_photos() | {"coders": node("BenchFailingCoders", vae=["base", 2], clip=["base", 1], fails=fails)}
    graph["data"]["inputs"] |= {"vae": ["coders", 0], "clip": ["coders", 1]}
    message = refusal(server, graph)
    assert said in message and message.strip().endswith("."), message
