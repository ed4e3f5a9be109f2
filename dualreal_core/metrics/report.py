"""Scores of several videos as lines for the terminal and as the document scores.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from ..files.provenance import provenance
from .features import References
from .registry import METRICS
from .scores import VideoScores, mean_scores

FORMAT = 1
NO_VALUE = "-"
OF_REFERENCES = "(refs)"
NAME_WIDTH = 40


@dataclass(frozen=True)
class MeasuredVideo:
    """One video as measured.

    Attributes:
        prompt_source: where the prompt came from; both None where it is not known.
        is_prompt_cut: CLIP did not see its end.
    """

    path: Path
    num_frames: int
    fps: float
    height: int
    width: int
    prompt: str | None
    prompt_source: str | None
    is_prompt_cut: bool
    result: VideoScores

    def as_dict(self) -> dict[str, object]:
        """Plain values, the result's among the others."""
        values = asdict(self)
        result = values.pop("result")
        return {**values, "path": str(self.path), **result}


def table_lines(videos: Sequence[MeasuredVideo]) -> list[str]:
    """A line per video and one of means, a column per metric that was measured, and below which were not, and why."""
    names = ["video", *names_apart([video.path for video in videos], NAME_WIDTH), "mean"]
    columns = [[name.ljust(max(map(len, names))) for name in names]]

    def add(heading: str, values: list[float | None]) -> None:
        known = [value for value in values if value is not None]
        if known:
            texts = [heading, *(NO_VALUE if value is None else f"{value:.4f}" for value in [*values, fmean(known)])]
            columns.append([text.rjust(max(map(len, texts))) for text in texts])

    for metric in METRICS:
        add(metric.heading, [video.result.scores[metric.name] for video in videos])
        if metric.name == "dynamic_degree":
            add(OF_REFERENCES, [video.result.reference_dynamic_degree for video in videos])
    return [*map("  ".join, zip(*columns, strict=True)), *_remarks(videos)]


def names_apart(paths: Sequence[Path], longest: int | None = None) -> list[str]:
    """File names, with so many of their folders that no two are equal, and numbered where these do not do it.

    Args:
        longest: of a name, in characters; the middle of longer ones is left out.
    """
    depths = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-depth:]) for path, depth in zip(paths, depths, strict=True)]
        growing = [index for index, name in enumerate(names) if names.count(name) > 1 and depths[index] < len(paths[index].parts)]
        if not growing:
            break
        for index in growing:
            depths[index] += 1
    tails = [name if longest is None or len(name) <= longest else f"{name[: longest // 2 - 3]}...{name[-longest // 2 :]}" for name in names]
    counts = [tails[: index + 1].count(name) for index, name in enumerate(tails)]
    return [name if tails.count(name) == 1 else f"{name} ({count})" for name, count in zip(tails, counts, strict=True)]


def document(
    videos: Sequence[MeasuredVideo],
    skipped: Mapping[Path, str],
    references: References,
    photo_files: Sequence[Path],
    motion_files: Sequence[Path],
) -> dict[str, object]:
    """Plain values for scores.json: definitions, models and preparation, references, and every video with its curves.

    Args:
        skipped: sentence by video that could not be read.
        photo_files, motion_files: of the references.
    """
    models = references.models
    reference_degrees = references.dynamic_degrees if models.raft is not None else [None] * len(motion_files)
    return {
        "format": FORMAT,
        "provenance": provenance(),
        "metrics": {metric.name: {"version": metric.version, "meaning": metric.meaning} for metric in METRICS},
        "models": {
            "clip": models.clip and models.clip.describe(),
            "dino": models.dino and models.dino.describe(),
            "raft": models.raft and models.raft.describe(),
            "motion_fidelity": models.patches and models.patches.folder.resolve().name,
        },
        "references": {
            "identity": list(map(str, photo_files)),
            "motion": [{"path": str(path), "dynamic_degree": degree} for path, degree in zip(motion_files, reference_degrees, strict=True)],
        },
        "means": mean_scores([video.result for video in videos]),
        "videos": [video.as_dict() for video in videos],
        "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped.items()],
    }


def _remarks(videos: Sequence[MeasuredVideo]) -> list[str]:
    lines, apart = [], names_apart([video.path for video in videos])
    for metric in METRICS:
        by_reason: dict[str, list[str]] = {}
        for video, name in zip(videos, apart, strict=True):
            if metric.name in video.result.not_measured:
                by_reason.setdefault(video.result.not_measured[metric.name], []).append(name)
        for reason, names in by_reason.items():
            whose = "" if len(names) == len(videos) else f" on {', '.join(names)}"
            lines.append(f"not measured{whose}: {metric.heading} ({reason})")
    cut = [name for video, name in zip(videos, apart, strict=True) if video.is_prompt_cut]
    return lines + ([f"note: CLIP sees only the beginning of the prompt of {', '.join(cut)}"] if cut else [])
