"""What an evaluation of several videos finds, and the embedding metric that makes one from encoded frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

import torch

from .embedding import consistency_per_pair, identity_per_frame
from .motion import movement_fidelity
from .pixel import flickering_per_pair, mean_smoothness_per_frame


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video; None where they are not defined: one frame shows neither movement nor change.

    Attributes:
        motion_per_reference: empty where the metric holds a video against the named motion itself.
        temporal_flickering, mean_smoothness: of `pixel`, where `with_frame_scores` added them.
        nearest_identity, nearest_motion: what the video resembles most, where the metric knows names.
    """

    name: str
    num_frames: int
    identity: float
    motion: float | None
    consistency: float | None
    identity_per_frame: list[float]
    consistency_per_pair: list[float]
    motion_per_reference: list[float]
    temporal_flickering: float | None = None
    mean_smoothness: float | None = None
    nearest_identity: str | None = None
    nearest_motion: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores of videos under one metric; targets are the names it gives the references, None where it knows none."""

    metric: str
    videos: list[VideoScores]
    identity_target: str | None = None
    motion_target: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class EncodedVideo:
    """embeddings: (F, D) of every frame; tokens: (F', h, w, D') of frames spread evenly over the clip."""

    embeddings: torch.Tensor
    tokens: torch.Tensor


def evaluate_embeddings(
    videos: Sequence[EncodedVideo], names: Sequence[str], identity: torch.Tensor, motions: Sequence[torch.Tensor]
) -> Evaluation:
    """Scores of encoded videos: means of the per-frame, per-pair and per-reference values.

    Args:
        identity: (R, D) embeddings of the identity references.
        motions: (F, h, w, D') tokens of each motion reference.
    """
    scores = []
    for name, video in zip(names, videos, strict=True):
        likeness = identity_per_frame(video.embeddings, identity).tolist()
        consistency = consistency_per_pair(video.embeddings).tolist()
        fidelity = [movement_fidelity(video.tokens, motion) for motion in motions]
        fidelity = [value for value in fidelity if value is not None]
        scores.append(
            VideoScores(
                name=name,
                num_frames=len(video.embeddings),
                identity=fmean(likeness),
                motion=fmean(fidelity) if fidelity else None,
                consistency=fmean(consistency) if consistency else None,
                identity_per_frame=likeness,
                consistency_per_pair=consistency,
                motion_per_reference=fidelity,
            )
        )
    return Evaluation("embedding", scores)


def with_frame_scores(evaluation: Evaluation, videos: Sequence[torch.Tensor]) -> Evaluation:
    """The evaluation with the scores that need no encoder: temporal flickering and mean smoothness.

    Args:
        videos: (F, 3, H, W) uint8 each, in the evaluation's order.
    """

    def mean(values: list[float]) -> float | None:
        return fmean(values) if values else None

    scored = [
        replace(scores, temporal_flickering=mean(flickering_per_pair(frames)), mean_smoothness=mean(mean_smoothness_per_frame(frames)))
        for scores, frames in zip(evaluation.videos, videos, strict=True)
    ]
    return replace(evaluation, videos=scored)
