"""One video under every metric of `definitions.METRICS`; what cannot be measured carries its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from ..errors import InputError
from .definitions import METRICS, NEEDS, Metric
from .flow import is_moving
from .material import References, VideoMaterial


@dataclass(frozen=True)
class MeasuredVideo:
    """Scores of one video.

    Attributes:
        scores: by metric name; None where it is not measured, and then `not_measured` says why.
        curves: the values that a score is the mean of: per frame, pair of frames, or reference clip.
        dynamic_degree_of_clips: the reference clips' own dynamic degree, in px of a video of this size; None without flow or clips.
        is_moving: VBench's yes or no from the dynamic degrees; None without flow.
    """

    scores: dict[str, float | None]
    curves: dict[str, list[float]]
    not_measured: dict[str, str]
    dynamic_degree_of_clips: float | None
    is_moving: bool | None


def measure(video: VideoMaterial, references: References) -> MeasuredVideo:
    """Every metric whose models, references and frames are there.

    Raises:
        InputError: a model gives NaN or infinity.
    """
    scores: dict[str, float | None] = {}
    curves: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for metric in METRICS:
        reason = missing(metric, video, references)
        scores[metric.name] = None
        if reason is not None:
            reasons[metric.name] = reason
            continue
        curves[metric.name] = metric.curve(video, references)
        if not all(map(isfinite, curves[metric.name])):
            raise InputError(f"{metric.heading} came out as no number: the model's weights are damaged or do not work on this device.")
        scores[metric.name] = fmean(curves[metric.name])
    size = (video.frames.shape[2], video.frames.shape[3])
    degrees = curves.get("dynamic_degree")
    return MeasuredVideo(
        scores,
        curves,
        reasons,
        references.dynamic_degree(min(size)) if degrees and references.clips else None,
        is_moving(degrees, size) if degrees else None,
    )


def missing(metric: Metric, video: VideoMaterial, references: References) -> str | None:
    """Why the metric cannot be measured on this video; None where it can."""
    unmet = [need for need in map(NEEDS.__getitem__, metric.needs) if not need.is_met(video.models, references, video.prompt)]
    if unmet:
        return unmet[0].reason
    if len(video.frames) < metric.min_frames:
        return f"the video has {len(video.frames)} frame{'s' * (len(video.frames) > 1)} and {metric.min_frames} are needed"
    return None


def mean_scores(videos: Sequence[MeasuredVideo]) -> dict[str, dict[str, float | int | None]]:
    """Per metric the mean over the videos on which it is measured, and how many these are."""
    means = {}
    for metric in METRICS:
        values = [video.scores[metric.name] for video in videos if video.scores[metric.name] is not None]
        means[metric.name] = {"mean": fmean(values) if values else None, "num_videos": len(values)}
    return means
