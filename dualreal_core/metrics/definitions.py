"""The metrics of `dualreal evaluate` as a table: what each is, what it needs, and how it is measured. `docs/metrics.md` explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .embedding import consistency_per_pair, identity_per_frame
from .flow import FIDELITY_FRAMES, dynamic_degree_per_pair, flow_fidelity, flow_smoothness_per_frame, sampled_frames
from .material import Models, References, VideoMaterial
from .motion import movement_fidelity
from .pixel import flickering_per_pair, mean_smoothness_per_frame


@dataclass(frozen=True)
class Metric:
    """One metric. Its score is the mean of its curve.

    Attributes:
        version: grows when the definition changes, so that old scores are not compared with new ones.
        meaning: one line; `docs/metrics.md` has the rest.
        needs: names in `NEEDS`, all of them.
        min_frames: of the video.
        curve: values per frame, pair of frames, or reference clip.
    """

    name: str
    heading: str
    version: int
    meaning: str
    needs: tuple[str, ...]
    min_frames: int
    curve: Callable[[VideoMaterial, References], list[float]]


@dataclass(frozen=True)
class Need:
    """is_met: whether it is there; reason: why a metric is not measured where it is not."""

    is_met: Callable[[Models, References, str | None], bool]
    reason: str


NEEDS = {
    "clip": Need(lambda models, references, prompt: models.clip is not None, "no --clip folder was given"),
    "clip text": Need(
        lambda models, references, prompt: models.clip is not None and models.clip.has_text,
        "no --clip folder with a text tower was given",
    ),
    "dino": Need(lambda models, references, prompt: models.dino is not None, "no --dino folder was given"),
    "patches": Need(lambda models, references, prompt: models.patches is not None, "neither a --dino nor a --clip folder was given"),
    "raft": Need(lambda models, references, prompt: models.raft is not None, "no --raft weights were given"),
    "identity": Need(lambda models, references, prompt: bool(references.photos), "no --identity photos were given"),
    "motion": Need(lambda models, references, prompt: bool(references.clips), "no --motion clips were given"),
    "prompt": Need(
        lambda models, references, prompt: prompt is not None,
        "no prompt is known: give --prompt, a text file beside the video, or a file name of several words",
    ),
}


def _clip_i(video: VideoMaterial, references: References) -> list[float]:
    return identity_per_frame(video.clip_embeddings, references.clip_embeddings).tolist()


def _dino_i(video: VideoMaterial, references: References) -> list[float]:
    return identity_per_frame(video.dino_embeddings, references.dino_embeddings).tolist()


def _motion_fidelity(video: VideoMaterial, references: References) -> list[float]:
    return [movement_fidelity(video.tokens, tokens) for tokens in references.tokens]


def _flow_fidelity(video: VideoMaterial, references: References) -> list[float]:
    counts = [min(len(video.frames), len(clip.frames), FIDELITY_FRAMES) for clip in references.clips]
    return [flow_fidelity(video.course(count), references.course(index, count)) for index, count in enumerate(counts)]


def _dynamic_degree(video: VideoMaterial, references: References) -> list[float]:
    return dynamic_degree_per_pair(sampled_frames(video.frames, video.fps), video.models.raft)


METRICS: tuple[Metric, ...] = (
    Metric(
        "clip_t",
        "CLIP-T",
        1,
        "cosine of the prompt and each frame in CLIP's space",
        ("clip text", "prompt"),
        1,
        lambda video, references: video.prompt_likeness(),
    ),
    Metric("clip_i", "CLIP-I", 1, "mean cosine of each frame with the photos in CLIP's space", ("clip", "identity"), 1, _clip_i),
    Metric("dino_i", "DINO-I", 1, "mean cosine of each frame with the photos, DINO's class tokens", ("dino", "identity"), 1, _dino_i),
    Metric(
        "temporal_flickering",
        "T.Flicker",
        1,
        "(255 - mean absolute difference of neighbouring frames) / 255",
        (),
        2,
        lambda video, references: flickering_per_pair(video.frames),
    ),
    Metric(
        "temporal_consistency",
        "T.Cons",
        1,
        "cosine of neighbouring frames in CLIP's space",
        ("clip",),
        2,
        lambda video, references: consistency_per_pair(video.clip_embeddings).tolist(),
    ),
    Metric(
        "mean_smoothness",
        "Smooth(mean)",
        1,
        "(255 - mean absolute difference of a frame and the plain mean of its neighbours) / 255",
        (),
        3,
        lambda video, references: mean_smoothness_per_frame(video.frames),
    ),
    Metric(
        "flow_smoothness",
        "Smooth(flow)",
        1,
        "(255 - mean absolute difference of a frame and its neighbours warped half way by RAFT) / 255",
        ("raft",),
        3,
        lambda video, references: flow_smoothness_per_frame(video.frames, video.models.raft),
    ),
    Metric(
        "dynamic_degree",
        "Dynamic",
        1,
        "mean length of the largest 5 % of RAFT's flow vectors at 8 fps, in px of the video",
        ("raft",),
        2,
        _dynamic_degree,
    ),
    Metric(
        "motion_fidelity", "Motion", 1, "likeness of the tracks of patch tokens to each clip's", ("patches", "motion"), 2, _motion_fidelity
    ),
    Metric(
        "flow_fidelity", "Motion(flow)", 1, "cosine of RAFT's flow on a coarse grid with each clip's", ("raft", "motion"), 2, _flow_fidelity
    ),
)
