"""`dualreal evaluate`: scores of videos against photos of an identity, videos of a motion, and their prompts."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ..dataset.captions import Captions
from ..dataset.photos import PHOTO_SUFFIXES, open_photo
from ..errors import InputError
from ..files.atomic import atomic_path
from ..metrics.features import Models, References, VideoFeatures
from ..metrics.motion import num_reference_frames
from ..metrics.raft import Raft
from ..metrics.report import MeasuredVideo, document, table_lines
from ..metrics.scores import measure
from ..video import VIDEO_SUFFIXES, probe_video, read_video
from .options import check_output_folder, open_device


def run(arguments: argparse.Namespace) -> None:
    """Measures every readable video, writes, prints; videos that cannot be read are named at the end."""
    scores_file = arguments.out / "scores.json"
    if scores_file.exists() and not arguments.overwrite:
        raise InputError(f"{scores_file} exists: choose another --out, or add --overwrite.")
    video_files = find_files(arguments.videos, VIDEO_SUFFIXES, "video")
    photo_files = find_files(arguments.identity, PHOTO_SUFFIXES, "photo")
    motion_files = find_files(arguments.motion, VIDEO_SUFFIXES, "video of the motion")
    check_output_folder(arguments.out)
    device = open_device(arguments.device)
    lengths, skipped, remarks = _probe(video_files)
    references = _load_references(arguments, device, photo_files, motion_files, num_reference_frames(lengths.values()))
    videos = []
    for path in tqdm(lengths, desc="measuring", unit="video"):
        try:
            videos.append(_measure(path, arguments.prompt, references))
        except InputError as problem:
            skipped[path] = str(problem)
        except (MemoryError, RuntimeError) as problem:
            if not _is_out_of_memory(problem):
                raise
            skipped[path] = f"{path} needs more memory than is free on {device}: make it smaller or shorter."
    if not videos:
        raise InputError(f"No video could be measured; the first one: {next(iter(skipped.values()))}")
    with atomic_path(scores_file) as temporary:
        content = document(videos, skipped, references, photo_files, motion_files)
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    print("\n".join([*table_lines(videos), *remarks]))
    print(f"wrote {scores_file}")
    if skipped:
        more = f" (and {len(skipped) - 1} more, listed in {scores_file})" if len(skipped) > 1 else ""
        raise InputError(f"{len(skipped)} of {len(video_files)} videos could not be measured: {next(iter(skipped.values()))}{more}")


def find_files(places: Sequence[Path], suffixes: Sequence[str], noun: str) -> list[Path]:
    """The files named, and in place of a folder its files of these suffixes by name.

    Raises:
        InputError: a place does not exist, or a folder holds no such file.
    """
    found: list[Path] = []
    for place in places:
        if not place.is_dir():
            if not place.is_file():
                raise InputError(f"{place} is no file or folder: check the path of the {noun}.")
            found.append(place)
            continue
        files = sorted(path for path in place.iterdir() if not path.is_dir() and not path.name.startswith("."))
        inside = [path for path in files if path.suffix.lower() in suffixes]
        if not inside:
            raise InputError(f"{place} holds no {noun} ({', '.join(suffixes)}): name a folder that does.")
        found += inside
    return list(dict.fromkeys(found))


def prompt_of(path: Path, given: str | None) -> tuple[str | None, str | None]:
    """What the video is to show and where that is said: the text file beside it, `given`, or a file name of several words.

    A number at the end of the name counts the videos of one prompt: 'a dog runs-3'. Bytes of the name that are no text are
    left out, as no text encoder takes them.

    Raises:
        InputError: the text file cannot be read or is empty.
    """
    if path.with_suffix(".txt").is_file():
        return Captions(path.parent, {}, "").of(path), "text file"
    if given:
        return given, "--prompt"
    named = re.sub(r"-\d+$", "", path.stem.encode(errors="ignore").decode())
    return (named, "file name") if len(named.split()) > 1 else (None, None)


def _probe(files: Sequence[Path]) -> tuple[dict[Path, int], dict[Path, str], list[str]]:
    """Frames of each readable video, the sentence of each other one, and what people should know about the readable ones."""
    lengths, skipped, remarks = {}, {}, []
    for path in files:
        try:
            probe = probe_video(path)
            lengths[path] = probe.num_frames
            remarks += [f"note: {path}: {remark}" for remark in probe.remarks]
        except InputError as problem:
            skipped[path] = str(problem)
    if not lengths:
        raise InputError(f"No video could be read; the first one: {next(iter(skipped.values()))}")
    return lengths, skipped, remarks


def _load_references(
    arguments: argparse.Namespace, device: str, photo_files: Sequence[Path], motion_files: Sequence[Path], num_frames: int
) -> References:
    """The references, of whose videos the motion fidelity sees `num_frames`, with the models, which load last as they take longest."""
    photos = [open_photo(path).picture.permute(2, 0, 1)[None] for path in photo_files]  # (1, 3, H, W) uint8
    motions = {path: read_video(path) for path in motion_files}
    for path, motion in motions.items():
        if len(motion.frames) < 2:
            raise InputError(f"{path} has one frame, which shows no motion: give a video of two or more.")
    from ..metrics.encoders import ClipEncoder, DinoEncoder  # transformers takes seconds, which the other commands need not wait

    models = Models(
        ClipEncoder(arguments.clip, device) if arguments.clip else None,
        DinoEncoder(arguments.dino, device) if arguments.dino else None,
        Raft(arguments.raft, device) if arguments.raft else None,
    )
    videos = [VideoFeatures(models, motion.frames, motion.fps, num_motion_frames=num_frames) for motion in motions.values()]
    return References(models, photos, videos)


def _measure(path: Path, prompt: str | None, references: References) -> MeasuredVideo:
    video, models = read_video(path), references.models
    text, source = prompt_of(path, prompt)
    is_cut = text is not None and models.clip is not None and models.clip.has_text and models.clip.is_cut(text)
    result = measure(VideoFeatures(models, video.frames, video.fps, text), references)
    return MeasuredVideo(path, len(video.frames), video.fps, *video.frames.shape[2:], text, source, is_cut, result)


def _is_out_of_memory(problem: Exception) -> bool:
    """Only CUDA has an error of its own for it; the CPU's allocator and others say it in a RuntimeError."""
    is_named = isinstance(problem, MemoryError | torch.OutOfMemoryError)
    return is_named or any(words in str(problem) for words in ("can't allocate memory", "not enough memory", "out of memory"))
