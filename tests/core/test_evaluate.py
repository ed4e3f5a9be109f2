"""`dualreal evaluate` from end to end on small clips: with every model, with none, and with what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
import torch
from media import blocks, save
from PIL import Image
from test_video import ffmpeg
from tiny_encoders import SpotFlow, make_clip, make_clip_vision, make_dinov2, spot_clip, straight

from dualreal_core.cli import main
from dualreal_core.commands.evaluate import prompt_of
from dualreal_core.metrics.encoders import ClipEncoder, DinoEncoder
from dualreal_core.metrics.features import References, VideoFeatures
from dualreal_core.metrics.registry import METRICS, NEEDS
from dualreal_core.metrics.report import names_apart
from dualreal_core.metrics.scores import VideoScores, measure
from dualreal_core.metrics.toyworld_metrics import TOYWORLD_METRICS
from dualreal_core.video import read_video, write_gif, write_mp4

ALWAYS = {"temporal_flickering", "mean_smoothness"}
NAMES = {metric.name for metric in METRICS}
SIZE = (256, 256)


def write(path: Path, frames: torch.Tensor, fps: float = 8) -> Path:
    write_gif(path, frames / 127.5 - 1, fps) if path.suffix == ".gif" else write_mp4(path, frames / 127.5 - 1, fps)
    return path


def clip(dx: int, num_frames: int = 6, start: int = 40) -> torch.Tensor:
    return spot_clip(straight(num_frames, dx, 0, (start, 100)), side=40, size=SIZE)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models")
    make_clip(place / "clip")
    make_clip_vision(place / "vision")
    make_dinov2(place / "dino")
    torch.save(SpotFlow().state_dict(), place / "raft.pth")
    return place


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Two videos, two photos, one clip of the motion."""
    place = tmp_path_factory.mktemp("media")
    for name in ("videos", "photos", "motion"):
        (place / name).mkdir()
    write(place / "videos" / "a dog runs-0.mp4", clip(16))
    write(place / "videos" / "b.mp4", clip(-8, start=160), fps=24)
    (place / "videos" / "b.txt").write_text("a cat\n", encoding="utf-8")
    write(place / "motion" / "right.mp4", clip(16, 7, start=20))
    for index, colour in enumerate([(200, 120, 30), (190, 140, 60)]):
        Image.new("RGB", (40, 50), colour).save(place / "photos" / f"{index}.png")
    return place


@pytest.fixture
def stand_in(monkeypatch) -> None:
    monkeypatch.setattr("dualreal_core.metrics.raft.build_network", lambda architecture: SpotFlow())


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def scores(out: Path) -> dict:
    return json.loads((out / "scores.json").read_text())


def test_every_metric_with_every_model(media, models, tmp_path, capsys, stand_in):
    flags = ["--identity", media / "photos", "--motion", media / "motion", "--raft", models / "raft.pth"]
    encoders = ["--clip", models / "clip", "--dino", models / "dino"]
    assert evaluate(media / "videos", *flags, *encoders, "--out", tmp_path) == 0
    board, printed = scores(tmp_path), capsys.readouterr().out
    assert "not measured" not in printed
    assert set(board["metrics"]) == set(board["means"]) == NAMES
    first, second = board["videos"]
    for video in (first, second):
        assert set(video["scores"]) == NAMES and not video["not_measured"]
        for name, curve in video["curves"].items():
            assert video["scores"][name] == pytest.approx(fmean(curve), abs=1e-9)
    for name in NAMES:
        assert board["means"][name] == {"mean": pytest.approx((first["scores"][name] + second["scores"][name]) / 2), "num_videos": 2}
        assert f"{board['means'][name]['mean']:.4f}" in printed
    lengths = {"clip_t": 6, "clip_i": 6, "dino_i": 6, "temporal_consistency": 5, "flow_smoothness": 4, "motion_fidelity": 1}
    assert {name: len(first["curves"][name]) for name in lengths} == lengths

    frames = read_video(media / "videos" / "a dog runs-0.mp4").frames
    photos = torch.stack([torch.tensor(colour, dtype=torch.uint8) for colour in [(200, 120, 30), (190, 140, 60)]])
    photos = photos[:, :, None, None].expand(-1, -1, 50, 40)
    for name, encoder in (("clip_i", ClipEncoder(models / "clip")), ("dino_i", DinoEncoder(models / "dino"))):
        cosines = torch.nn.functional.cosine_similarity(encoder.embed(frames)[:, None], encoder.embed(photos)[None], dim=-1)
        assert first["curves"][name] == pytest.approx(cosines.mean(1).tolist(), abs=1e-5)
    encoder = ClipEncoder(models / "clip")
    cosines = torch.nn.functional.cosine_similarity(encoder.embed(frames), encoder.embed_text("a dog runs")[None])
    assert first["curves"]["clip_t"] == pytest.approx(cosines.tolist(), abs=1e-5)
    differences = [(before.double() - after.double()).abs().mean() for before, after in pairwise(frames)]
    assert first["curves"]["temporal_flickering"] == pytest.approx([float(1 - part / 255) for part in differences], abs=1e-9)

    assert (first["prompt"], first["prompt_source"]) == ("a dog runs", "file name")
    assert (second["prompt"], second["prompt_source"]) == ("a cat", "text file")
    assert first["scores"]["dynamic_degree"] == pytest.approx(16, rel=0.02)
    assert second["scores"]["dynamic_degree"] == pytest.approx(24, rel=0.02)  # 24 fps: every third frame
    assert first["reference_dynamic_degree"] == pytest.approx(16, rel=0.02)
    assert first["is_moving"] is True
    assert first["scores"]["flow_fidelity"] > 0.99
    assert second["scores"]["flow_fidelity"] < -0.99
    assert board["references"]["motion"][0]["dynamic_degree"] == pytest.approx(16, rel=0.02)
    assert board["models"]["raft"]["type"] == "raft_small"
    assert board["models"]["motion_fidelity"] == "dino"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_odd_videos_are_measured_or_named(media, tmp_path, capsys):
    """A thumbnail before the picture is passed over and told; a pipe named like a video is neither waited for nor left out in silence."""
    place = tmp_path / "videos"
    place.mkdir()
    save(tmp_path / "thumbnail.png", blocks(64, 64, 1))
    whole = media / "videos" / "a dog runs-0.mp4"
    ffmpeg("-i", str(tmp_path / "thumbnail.png"), "-i", str(whole), "-map", "0", "-map", "1", "-c:v:0", "mjpeg", "-c:v:1", "copy",
           str(place / "b.mov"))  # fmt: skip
    os.mkfifo(place / "c.mp4")
    assert evaluate(place, "--motion", place / "b.mov", "--out", tmp_path / "out") != 0
    said, board = capsys.readouterr(), scores(tmp_path / "out")
    assert [(video["num_frames"], video["height"]) for video in board["videos"]] == [(6, 256)]
    assert "b.mov: of its 2 picture streams number" in said.out
    assert "1 of 2 videos could not be measured" in said.err and "c.mp4 is a pipe, not a file" in said.err


@pytest.mark.parametrize(("stem", "prompt"), [("a dog runs-3", "a dog runs"), ("a dog runs", "a dog runs"), ("a-2 b-10", "a-2 b")])
def test_prompts_of_file_names(stem, prompt):
    assert prompt_of(Path(f"{stem}.mp4"), None) == (prompt, "file name")


def test_without_models_the_closed_forms_are_measured_and_the_rest_explained(media, tmp_path, capsys):
    assert evaluate(media / "videos", "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    board = scores(tmp_path)
    for video in board["videos"]:
        assert {name for name, value in video["scores"].items() if value is not None} == ALWAYS
        assert set(video["not_measured"]) == NAMES - ALWAYS
    for metric in METRICS:
        assert (f"not measured: {metric.heading} (" in printed) == (metric.name not in ALWAYS)
    for reason in ("no --clip folder was given", "no --dino folder was given", "no --raft weights were given"):
        assert reason in printed
    assert board["models"] == {"clip": None, "dino": None, "raft": None, "motion_fidelity": None}


def test_what_is_missing_decides_what_is_not_measured(media, models, tmp_path, capsys):
    video, common = media / "motion" / "right.mp4", ["--dino", models / "dino", "--out"]
    assert evaluate(video, "--clip", models / "vision", *common, tmp_path / "a") == 0
    reasons = scores(tmp_path / "a")["videos"][0]["not_measured"]
    assert reasons["clip_t"] == "no --clip folder with a text tower was given"
    assert reasons["clip_i"] == reasons["dino_i"] == "no --identity photos were given"
    assert reasons["motion_fidelity"] == "no --motion videos were given"
    assert "temporal_consistency" not in reasons
    assert evaluate(video, "--clip", models / "clip", "--motion", video, "--out", tmp_path / "b") == 0
    board = scores(tmp_path / "b")
    assert board["videos"][0]["not_measured"]["clip_t"] == NEEDS["prompt"].reason
    assert board["videos"][0]["scores"]["motion_fidelity"] == pytest.approx(1, abs=1e-5)
    assert board["models"]["motion_fidelity"] == "clip"
    capsys.readouterr()
    long = "a dog that runs through a wood of very many trees"
    assert evaluate(video, "--clip", models / "clip", "--prompt", long, "--out", tmp_path / "c") == 0
    assert "CLIP sees only the beginning of the prompt of right.mp4" in capsys.readouterr().out
    assert scores(tmp_path / "c")["videos"][0]["is_prompt_cut"] is True


def test_one_frame_shows_no_change(media, models, tmp_path, capsys):
    write(tmp_path / "single.mp4", clip(0, 1))
    videos = [tmp_path / "single.mp4", media / "videos"]
    assert evaluate(*videos, "--clip", models / "clip", "--identity", media / "photos", "--out", tmp_path / "out") == 0
    board = scores(tmp_path / "out")
    assert board["videos"][0]["not_measured"]["temporal_flickering"] == "the video has 1 frame and 2 are needed"
    assert board["videos"][0]["scores"]["clip_i"] is not None
    assert board["means"]["temporal_flickering"]["num_videos"] == 2
    assert board["means"]["clip_i"]["num_videos"] == 3
    assert "not measured on single.mp4: T.Flicker" in capsys.readouterr().out


def test_bad_videos_among_good_ones_are_reported_and_skipped(media, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    assert evaluate(tmp_path / "broken.mp4", media / "videos", "--out", tmp_path / "out") == 2
    board, error = scores(tmp_path / "out"), capsys.readouterr().err
    assert len(board["videos"]) == 2
    assert [Path(entry["path"]).name for entry in board["skipped"]] == ["broken.mp4"]
    assert "1 of 3 videos could not be measured" in error and "broken.mp4" in error


OUT_OF_MEMORY = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.20 GiB."),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("problem", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_video_too_large_for_the_memory_does_not_cost_the_other_scores(media, tmp_path, capsys, monkeypatch, problem):
    fail_on_second_video(monkeypatch, problem)
    assert evaluate(media / "videos", "--out", tmp_path) == 2
    board, error = scores(tmp_path), capsys.readouterr().err
    assert [Path(video["path"]).name for video in board["videos"]] == ["a dog runs-0.mp4"]
    assert [Path(entry["path"]).name for entry in board["skipped"]] == ["b.mp4"]
    assert "b.mp4 needs more memory than is free on cpu: make it smaller or shorter." in error


def test_other_errors_of_torch_are_not_taken_for_a_lack_of_memory(media, tmp_path, monkeypatch):
    fail_on_second_video(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        evaluate(media / "videos", "--out", tmp_path)


def fail_on_second_video(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> None:
    """Of the two videos, b.mp4 is the one with a prompt in a text file."""

    def measured(video: VideoFeatures, references: References) -> VideoScores:
        if video.prompt == "a cat":
            raise problem
        return measure(video, references)

    monkeypatch.setattr("dualreal_core.commands.evaluate.measure", measured)


@pytest.mark.parametrize("out", ["{taken}", "{taken}/deep/out"])
def test_folders_that_take_no_files_are_noticed_before_anything_is_measured(media, tmp_path, capsys, monkeypatch, out):
    fail_on_second_video(monkeypatch, AssertionError("it was measured"))
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert evaluate(media / "videos", "--out", out.format(taken=taken)) == 2
    assert "taken" in capsys.readouterr().err.strip().splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == [taken] and taken.read_text() == "mine"


def test_file_names_that_are_no_text_are_measured(media, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    name = "caf\udce9 dog runs-0.mp4"
    shutil.copy(media / "videos" / "b.mp4", tmp_path / "videos" / name)
    assert evaluate(tmp_path / "videos", "--out", tmp_path / "out") == 0
    assert scores(tmp_path / "out")["videos"][0]["prompt"] == "caf dog runs"


@pytest.fixture
def bad(tmp_path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "broken.png").write_bytes(b"no photo at all")
    write(tmp_path / "single.mp4", clip(0, 1))
    return tmp_path


@pytest.mark.parametrize(
    ("videos", "flags", "words"),
    [
        ("{bad}/nowhere", [], "is no file or folder"),
        ("{bad}/empty", [], "holds no video"),
        ("{bad}/broken.mp4", [], "No video could be read"),
        ("{good}/videos", ["--identity", "{bad}/empty"], "holds no photo"),
        ("{good}/videos", ["--identity", "{bad}/broken.png"], "cannot be read as a PNG"),
        ("{good}/videos", ["--motion", "{bad}/empty"], "holds no video of the motion"),
        ("{good}/videos", ["--motion", "{bad}/broken.mp4"], "cannot be read as a video"),
        ("{good}/videos", ["--motion", "{bad}/single.mp4"], "has one frame, which shows no motion"),
        ("{good}/videos", ["--clip", "{models}/dino"], "not CLIP"),
        ("{good}/videos", ["--clip", "{bad}/empty"], "config.json is missing"),
        ("{good}/videos", ["--raft", "{models}/dino"], "no RAFT weights in torchvision's form"),
        ("{good}/videos", ["--device", "abacus"], "device 'abacus' cannot be used"),
    ],
)
def test_bad_input_ends_in_one_sentence(bad, media, models, capsys, videos, flags, words):
    texts = [text.format(bad=bad, good=media, models=models) for text in (videos, *flags)]
    assert evaluate(*texts, "--out", bad / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("dualreal evaluate: ") and words in error
    assert not (bad / "out").exists()


def test_scores_are_not_replaced_unasked(media, tmp_path, capsys):
    assert evaluate(media / "motion", "--out", tmp_path) == 0
    before = (tmp_path / "scores.json").read_bytes()
    assert evaluate(media / "videos", "--out", tmp_path) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "scores.json").read_bytes() == before
    assert evaluate(media / "videos", "--out", tmp_path, "--overwrite") == 0
    assert len(scores(tmp_path)["videos"]) == 2


def test_definitions_are_explained_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for metric in (*METRICS, *TOYWORLD_METRICS):
        assert f"`{metric.name}`" in text
        assert set(metric.needs) <= set(NEEDS)


def test_equal_names_in_two_folders_are_told_apart(media, tmp_path, capsys):
    """In the table and in the remarks below it."""
    for folder in ("ours", "theirs"):
        (tmp_path / folder).mkdir()
        for name in ("b.mp4", f"{folder}.mp4"):
            shutil.copy(media / "videos" / "b.mp4", tmp_path / folder / name)
    (tmp_path / "ours" / "b.txt").write_text("a dog", encoding="utf-8")
    assert evaluate(tmp_path / "ours", tmp_path / "theirs", "--out", tmp_path / "out") == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:5]]
    assert rows == ["ours/b.mp4", "ours.mp4", "theirs/b.mp4", "theirs.mp4"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x/0.mp4", "b/x/0.mp4", "b/y/0.mp4", "c/1.mp4"], ["a/x/0.mp4", "b/x/0.mp4", "y/0.mp4", "1.mp4"]),
        (["0.mp4", "a/0.mp4"], ["0.mp4", "a/0.mp4"]),
        (["0.mp4", "0.mp4"], ["0.mp4 (1)", "0.mp4 (2)"]),
        (["/r/a/0.mp4", "/s/a/0.mp4"], ["r/a/0.mp4", "s/a/0.mp4"]),
        ([f"{'a dog runs ' * 5}{end}.mp4" for end in "pq"], [f"a dog runs a dog ...uns a dog runs {end}.mp4" for end in "pq"]),
        ([f"{'x' * 30}{middle}{'y' * 30}.mp4" for middle in "pq"], [f"{'x' * 17}...{'y' * 16}.mp4 ({number})" for number in (1, 2)]),
    ],
)
def test_names_in_a_table_are_never_equal(paths, names):
    assert names_apart(list(map(Path, paths)), 40) == names
