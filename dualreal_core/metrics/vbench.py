"""A folder that VBench reads: videos named by their prompts, its list of prompts, and results in its form.

Names and forms are those of VBench 0.1.5 (Huang et al., CVPR 2024): `prompt-0.mp4`, NAME_full_info.json, NAME_eval_results.json.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ..errors import InputError
from ..files.atomic import atomic_path
from .video_scores import MeasuredVideo

RUN_NAME = "dualreal"
READ_SUFFIXES = (".mp4", ".gif")
"""Containers that VBench looks for in a folder of one's own videos."""
MAX_NAME_BYTES = 230
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')
DIMENSIONS: dict[str, Callable[[MeasuredVideo], float | bool | None]] = {
    "temporal_flickering": lambda video: video.scores["temporal_flickering"],
    "dynamic_degree": lambda video: video.is_moving,
}
"""VBench's dimensions whose definition is ours too; `docs/metrics.md` says where the others differ."""


@dataclass(frozen=True)
class VBenchVideo:
    """prompt: None where it is not known; the file's own name then stands for it."""

    path: Path
    prompt: str | None
    measured: MeasuredVideo


def check_vbench_folder(folder: Path, videos: Sequence[Path], overwrites: bool = False) -> set[str]:
    """Names of the videos that an earlier run listed there and that this one replaces.

    Args:
        videos: those that are to be copied there.
        overwrites: an earlier run's videos may go.

    Raises:
        InputError: the folder holds other videos, since VBench takes every video in it for one of this run, or these videos themselves.
    """
    target, prompts_file = _videos(folder), _prompts_file(folder)
    if any(video.resolve().parent == target.resolve() for video in videos):
        raise InputError(f"{target} holds the videos to be measured: choose another --vbench folder.")
    listed: set[str] = set()
    if overwrites and prompts_file.is_file():
        try:
            listed = {Path(path).name for entry in json.loads(prompts_file.read_text(encoding="utf-8")) for path in entry["video_list"]}
        except (ValueError, KeyError, TypeError) as problem:
            raise InputError(f"{prompts_file} is not what this command wrote: choose an empty --vbench folder.") from problem
    if target.exists() and (not target.is_dir() or any(path.name not in listed for path in target.iterdir())):
        raise InputError(f"{target} holds other files: choose an empty --vbench folder, or add --overwrite to replace an earlier run's.")
    return listed


def write_vbench_folder(folder: Path, videos: Sequence[VBenchVideo], overwrites: bool = False) -> list[Path]:
    """Copies the videos to `folder`/videos as `{prompt}-{index}.mp4` and writes both JSON files beside them.

    Returns:
        Videos left out, because VBench does not look for their container.

    Raises:
        InputError: as `check_vbench_folder`, or the folder cannot be written.
    """
    target = _videos(folder)
    for name in check_vbench_folder(folder, [video.path for video in videos], overwrites):
        (target / name).unlink(missing_ok=True)
    prompts: list[dict[str, object]] = []
    results: dict[str, list[dict[str, object]]] = {dimension: [] for dimension in DIMENSIONS}
    left_out, places = [], Counter()
    for video in videos:
        suffix = video.path.suffix.lower()
        if suffix not in READ_SUFFIXES:
            left_out.append(video.path)
            continue
        prompt = video.prompt or video.path.stem
        stem = file_stem(prompt)
        copy = target / f"{stem}-{places[stem.lower()]}{suffix}"
        places[stem.lower()] += 1
        with atomic_path(copy) as temporary:
            shutil.copyfile(video.path, temporary)
        prompts.append({"prompt_en": prompt, "dimension": list(DIMENSIONS), "video_list": [str(copy)]})
        for dimension, result in DIMENSIONS.items():
            value = result(video.measured)
            if value is not None:
                results[dimension].append({"video_path": str(copy), "video_results": value})
    summary = {dimension: [fmean(row["video_results"] for row in rows), rows] for dimension, rows in results.items() if rows}
    _write_json(_prompts_file(folder), prompts)
    _write_json(folder / f"{RUN_NAME}_eval_results.json", summary)
    return left_out


def file_stem(prompt: str) -> str:
    """A prompt as a file name without its index: what no file system takes is left out, and what is too long."""
    words = " ".join(UNSAFE.sub(" ", prompt).split())
    return words.encode(errors="ignore")[:MAX_NAME_BYTES].decode(errors="ignore").strip(" .") or "video"


def prompt_of_stem(stem: str) -> str:
    """The prompt in a file name of VBench's form: the name without a number at its end, `a dog runs-3` -> `a dog runs`.

    Bytes that are no text are left out, as no text encoder takes them.
    """
    return re.sub(r"-\d+$", "", stem.encode(errors="ignore").decode())


def _videos(folder: Path) -> Path:
    return folder / "videos"


def _prompts_file(folder: Path) -> Path:
    return folder / f"{RUN_NAME}_full_info.json"


def _write_json(path: Path, content: object) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
