"""`dualreal evaluate`: scores of videos against photos of an identity, clips of a motion, and their prompts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ..dataset.captions import Captions
from ..dataset.photos import PHOTO_SUFFIXES, open_photo
from ..errors import InputError
from ..files.atomic import atomic_path
from ..metrics.material import Models, References, VideoMaterial
from ..metrics.motion import MAX_FRAMES, num_reference_frames
from ..metrics.raft import Raft
from ..metrics.report import Row, document, table_lines
from ..metrics.vbench import VBenchVideo, check_vbench_folder, prompt_of_stem, write_vbench_folder
from ..metrics.video_scores import measure
from ..video import VIDEO_SUFFIXES, Clip, probe_video, read_video
from .options import check_output_folder

HELP = "score videos against photos of an identity, clips of a motion and their prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help="video files, or folders of them")
    parser.add_argument("--identity", type=Path, nargs="+", default=[], metavar="PHOTO", help="photos of the identity, or folders of them")
    parser.add_argument("--motion", type=Path, nargs="+", default=[], metavar="CLIP", help="clips of the motion, or folders of them")
    parser.add_argument("--prompt", help="prompt of videos without a text file beside them (default: file names of several words)")
    parser.add_argument("--clip", type=Path, metavar="FOLDER", help="CLIP model in transformers form: CLIP-T, CLIP-I, consistency")
    parser.add_argument("--dino", type=Path, metavar="FOLDER", help="DINOv2 or DINO model in transformers form: DINO-I, motion fidelity")
    parser.add_argument("--raft", type=Path, metavar="FILE", help="weights of torchvision's RAFT: dynamic degree, smoothness, flow")
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for scores.json")
    parser.add_argument("--vbench", type=Path, metavar="DIR", help="also write the videos and scores as VBench reads them")
    parser.add_argument("--overwrite", action="store_true", help="replace the scores of an earlier run")


def run(arguments: argparse.Namespace) -> None:
    """Measures every readable video, writes, prints; videos that cannot be read are named at the end."""
    scores_file = arguments.out / "scores.json"
    if scores_file.exists() and not arguments.overwrite:
        raise InputError(f"{scores_file} exists: choose another --out, or add --overwrite.")
    videos = find_files(arguments.videos, VIDEO_SUFFIXES, "video")
    photo_files = find_files(arguments.identity, PHOTO_SUFFIXES, "photo")
    clip_files = find_files(arguments.motion, VIDEO_SUFFIXES, "clip")
    check_output_folder(arguments.out)
    if arguments.vbench is not None:
        check_vbench_folder(arguments.vbench, videos, arguments.overwrite)
        check_output_folder(arguments.vbench)
    lengths, skipped = _probe(videos)
    photos = [_photo(path) for path in photo_files]
    clips = [_motion_clip(path) for path in clip_files]
    models = _load_models(arguments)
    references = References(models, photos, clips, num_reference_frames(lengths.values()))
    rows = []
    with tqdm(total=len(lengths), desc="measuring", unit="video") as bar:
        for path in lengths:
            try:
                rows.append(_measure(path, arguments.prompt, models, references))
            except InputError as problem:
                skipped[path] = str(problem)
            except (MemoryError, RuntimeError) as problem:
                if not _is_out_of_memory(problem):
                    raise
                skipped[path] = f"{path} needs more memory than is free on {arguments.device}: make it smaller or shorter."
            bar.update()
    if not rows:
        raise InputError(f"No video could be measured; the first one: {next(iter(skipped.values()))}")
    with atomic_path(scores_file) as temporary:
        content = document(rows, skipped, models, references, photo_files, clip_files)
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    print("\n".join(table_lines(rows)))
    print(f"wrote {scores_file}")
    if arguments.vbench is not None:
        left_out = write_vbench_folder(
            arguments.vbench, [VBenchVideo(row.path, row.prompt, row.measured) for row in rows], arguments.overwrite
        )
        print(f"wrote {arguments.vbench}: {len(rows) - len(left_out)} videos and results in VBench's form")
        for path in left_out:
            print(f"left out of it: {path} (VBench reads .mp4 and .gif)")
    if skipped:
        more = f" (and {len(skipped) - 1} more, listed in {scores_file})" if len(skipped) > 1 else ""
        raise InputError(f"{len(skipped)} of {len(videos)} videos could not be measured: {next(iter(skipped.values()))}{more}")


def find_files(places: Sequence[Path], suffixes: Sequence[str], noun: str) -> list[Path]:
    """The files named, and in place of a folder its files of these suffixes by name.

    Raises:
        InputError: a place does not exist, or a folder holds no such file.
    """
    found: list[Path] = []
    for place in places:
        if place.is_file():
            found.append(place)
            continue
        if not place.is_dir():
            raise InputError(f"{place} is no file or folder: check the path of the {noun}.")
        inside = sorted(path for path in place.iterdir() if _is_named(path, suffixes))
        if not inside:
            raise InputError(f"{place} holds no {noun} ({', '.join(suffixes)}): name a folder that does.")
        found += inside
    return list(dict.fromkeys(found))


def _is_named(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")


def prompt_of(path: Path, given: str | None) -> tuple[str | None, str | None]:
    """What the video is to show and where that is said: the text file beside it, `given`, or a file name of several words.

    Raises:
        InputError: the text file cannot be read or is empty.
    """
    if path.with_suffix(".txt").is_file():
        return Captions(path.parent, {}, "").of(path), "text file"
    if given:
        return given, "--prompt"
    named = prompt_of_stem(path.stem)
    return (named, "file name") if len(named.split()) > 1 else (None, None)


def _measure(path: Path, prompt: str | None, models: Models, references: References) -> Row:
    clip = read_video(path)
    text, source = prompt_of(path, prompt)
    is_cut = text is not None and models.clip is not None and models.clip.has_text and models.clip.is_cut(text)
    measured = measure(VideoMaterial(models, clip, text, MAX_FRAMES), references)
    return Row(path, clip.fps, len(clip.frames), tuple(clip.frames.shape[2:]), text, source, is_cut, measured)


def _is_out_of_memory(problem: Exception) -> bool:
    """Only CUDA has an error of its own for it; the CPU's allocator and others say it in a RuntimeError."""
    is_named = isinstance(problem, MemoryError | torch.OutOfMemoryError)
    return is_named or any(words in str(problem) for words in ("can't allocate memory", "not enough memory", "out of memory"))


def _probe(videos: Sequence[Path]) -> tuple[dict[Path, int], dict[Path, str]]:
    """Frames of each readable video, and the sentence of each other one."""
    lengths, skipped = {}, {}
    for path in videos:
        try:
            lengths[path] = probe_video(path).num_frames
        except InputError as problem:
            skipped[path] = str(problem)
    if not lengths:
        raise InputError(f"No video could be read; the first one: {next(iter(skipped.values()))}")
    return lengths, skipped


def _photo(path: Path) -> torch.Tensor:
    """(3, H, W) uint8"""
    return open_photo(path).picture.permute(2, 0, 1)


def _motion_clip(path: Path) -> Clip:
    clip = read_video(path)
    if len(clip.frames) < 2:
        raise InputError(f"{path} has one frame, which shows no motion: give a clip of two or more.")
    return clip


def _load_models(arguments: argparse.Namespace) -> Models:
    """Encoders are imported here because transformers takes seconds, which the other commands need not wait."""
    device = arguments.device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"The device {device!r} cannot be used ({str(problem).splitlines()[0]}): use --device cpu.") from problem
    from ..metrics.encoders import ClipEncoder, DinoEncoder

    return Models(
        ClipEncoder(arguments.clip, device) if arguments.clip else None,
        DinoEncoder(arguments.dino, device) if arguments.dino else None,
        Raft(arguments.raft, device) if arguments.raft else None,
    )
