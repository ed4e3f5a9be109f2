"""The scores of one video under the metrics of `registry`; what cannot be measured carries its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from ..errors import InputError
from .features import References, VideoFeatures
from .flow import is_moving
from .registry import METRICS, NEEDS, Metric


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video.

    Attributes:
        scores: by metric name; None where it is not measured, and then `not_measured` says why.
        curves: the values that a score is the mean of: per frame, pair of frames, or reference video.
        reference_dynamic_degree: the reference videos' own dynamic degree, in px of a video of this size; None without flow or these.
        is_moving: VBench's yes or no from the dynamic degrees; None without flow.
    """

    scores: dict[str, float | None]
    curves: dict[str, list[float]]
    not_measured: dict[str, str]
    reference_dynamic_degree: float | None
    is_moving: bool | None


def measure(video: VideoFeatures, references: References, metrics: Sequence[Metric] = METRICS) -> VideoScores:
    """Those of `metrics` whose models, references and frames are there.

    Raises:
        InputError: a model gives NaN or infinity.
    """
    scores: dict[str, float | None] = {}
    curves: dict[str, list[float]] = {}
    not_measured: dict[str, str] = {}
    for metric in metrics:
        scores[metric.name] = None
        missing = [NEEDS[need].reason for need in metric.needs if not NEEDS[need].is_met(video, references)]
        if len(video.frames) < metric.min_frames:
            missing.append(f"the video has {len(video.frames)} frame{'s' * (len(video.frames) > 1)} and {metric.min_frames} are needed")
        if missing:
            not_measured[metric.name] = missing[0]
            continue
        curve = curves[metric.name] = metric.curve(video, references)
        if not all(map(isfinite, curve)):
            raise InputError(f"{metric.heading} came out as no number: the model's weights are damaged or do not work on this device.")
        scores[metric.name] = metric.score(video, references) if metric.score else fmean(curve)
    size = (video.frames.shape[2], video.frames.shape[3])
    degrees = curves.get("dynamic_degree")
    return VideoScores(
        scores,
        curves,
        not_measured,
        references.dynamic_degree(min(size)) if degrees and references.videos else None,
        is_moving(degrees, size) if degrees else None,
    )


def mean_scores(videos: Sequence[VideoScores]) -> dict[str, dict[str, float | int | None]]:
    """Per metric the mean over the videos on which it is measured, and how many these are."""
    means = {}
    for metric in METRICS:
        values = [video.scores[metric.name] for video in videos if video.scores[metric.name] is not None]
        means[metric.name] = {"mean": fmean(values) if values else None, "num_videos": len(values)}
    return means
