"""Scores of several videos as lines for the terminal and as the document scores.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.provenance import provenance
from .definitions import METRICS
from .material import Models, References
from .video_scores import MeasuredVideo, mean_scores

FORMAT = 1
NO_VALUE = "-"
OF_CLIPS = "(clips)"
NAME_WIDTH = 40


@dataclass(frozen=True)
class Row:
    """One video as measured.

    Attributes:
        prompt_source: where the prompt came from; both None where it is not known.
        is_prompt_cut: CLIP did not see its end.
    """

    path: Path
    fps: float
    num_frames: int
    size: tuple[int, int]
    prompt: str | None
    prompt_source: str | None
    is_prompt_cut: bool
    measured: MeasuredVideo


def table_lines(rows: Sequence[Row]) -> list[str]:
    """A line per video and one of means, a column per metric that was measured, and below which were not, and why."""
    measured = [row.measured for row in rows]
    shown = [metric for metric in METRICS if any(video.scores[metric.name] is not None for video in measured)]
    means = mean_scores(measured)
    table = [["video", *(metric.heading for metric in shown)]]
    table += [[_short(row.path.name), *(_number(row.measured.scores[metric.name]) for metric in shown)] for row in rows]
    table.append(["mean", *(_number(means[metric.name]["mean"]) for metric in shown)])
    if any(video.dynamic_degree_of_clips is not None for video in measured):
        place = 2 + [metric.name for metric in shown].index("dynamic_degree")
        of_clips = [video.dynamic_degree_of_clips for video in measured]
        known = [value for value in of_clips if value is not None]
        for line, text in zip(table, [OF_CLIPS, *map(_number, of_clips), _number(sum(known) / len(known))], strict=True):
            line.insert(place, text)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
    return [*lines, *_remarks(rows)]


def document(
    rows: Sequence[Row], skipped: Mapping[Path, str], models: Models, references: References, photos: Sequence[Path], clips: Sequence[Path]
) -> dict[str, object]:
    """Plain values for scores.json: definitions, models and preparation, references, and every video with its curves.

    Args:
        skipped: sentence by video that could not be read.
        photos, clips: files of the references.
    """
    reference_degrees = references.dynamic_degrees if models.raft is not None else [None] * len(clips)
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
            "identity": list(map(str, photos)),
            "motion": [{"path": str(path), "dynamic_degree": degree} for path, degree in zip(clips, reference_degrees, strict=True)],
        },
        "means": mean_scores([row.measured for row in rows]),
        "videos": [
            {
                "path": str(row.path),
                "num_frames": row.num_frames,
                "fps": row.fps,
                "height": row.size[0],
                "width": row.size[1],
                "prompt": row.prompt,
                "prompt_source": row.prompt_source,
                "is_prompt_cut": row.is_prompt_cut,
                "scores": row.measured.scores,
                "dynamic_degree_of_clips": row.measured.dynamic_degree_of_clips,
                "is_moving": row.measured.is_moving,
                "curves": row.measured.curves,
                "not_measured": row.measured.not_measured,
            }
            for row in rows
        ],
        "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped.items()],
    }


def _remarks(rows: Sequence[Row]) -> list[str]:
    lines = []
    for metric in METRICS:
        by_reason: dict[str, list[str]] = {}
        for row in rows:
            if metric.name in row.measured.not_measured:
                by_reason.setdefault(row.measured.not_measured[metric.name], []).append(row.path.name)
        for reason, names in by_reason.items():
            whose = "" if len(names) == len(rows) else f" on {', '.join(names)}"
            lines.append(f"not measured{whose}: {metric.heading} ({reason})")
    cut = [row.path.name for row in rows if row.is_prompt_cut]
    return lines + ([f"note: CLIP sees only the beginning of the prompt of {', '.join(cut)}"] if cut else [])


def _number(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.4f}"


def _short(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."
