"""The metrics as a table: what each is, what it needs, and how it is measured. `docs/metrics.md` explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.nn.functional import cosine_similarity

from .embedding import consistency_per_pair, identity_per_frame
from .features import References, VideoFeatures
from .flow import FIDELITY_FRAMES, flow_fidelity, flow_smoothness_per_frame
from .motion import movement_fidelity
from .pixel import flickering_per_pair, mean_smoothness_per_frame


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        meaning: one line; `docs/metrics.md` has the rest.
        needs: names in `NEEDS`, all of them.
        min_frames: of the video.
        curve: values per frame, pair of frames, or reference video.
        score: of the video, where it is not the plain mean of its curve.
        version: grows when the definition changes, so that old scores are not compared with new ones.
    """

    name: str
    heading: str
    meaning: str
    needs: tuple[str, ...]
    min_frames: int
    curve: Callable[[VideoFeatures, References], list[float]]
    score: Callable[[VideoFeatures, References], float] | None = None
    version: int = 1


@dataclass(frozen=True)
class Need:
    """is_met: whether it is there; reason: why a metric is not measured where it is not."""

    is_met: Callable[[VideoFeatures, References], bool]
    reason: str


NEEDS = {
    "clip": Need(lambda video, references: video.models.clip is not None, "no --clip folder was given"),
    "clip text": Need(
        lambda video, references: video.models.clip is not None and video.models.clip.has_text,
        "no --clip folder with a text tower was given",
    ),
    "dino": Need(lambda video, references: video.models.dino is not None, "no --dino folder was given"),
    "patches": Need(lambda video, references: video.models.patches is not None, "neither a --dino nor a --clip folder was given"),
    "raft": Need(lambda video, references: video.models.raft is not None, "no --raft weights were given"),
    "identity": Need(lambda video, references: bool(references.photos), "no --identity photos were given"),
    "motion": Need(lambda video, references: bool(references.videos), "no --motion videos were given"),
    "prompt": Need(
        lambda video, references: video.prompt is not None,
        "no prompt is known: give --prompt, a text file beside the video, or a file name of several words",
    ),
}


def _motion_fidelity(video: VideoFeatures, references: References) -> list[float]:
    fidelity = [movement_fidelity(video.tokens, reference.tokens) for reference in references.videos]
    return [value for value in fidelity if value is not None]  # a reference of one frame shows no movement


def _flow_fidelity(video: VideoFeatures, references: References) -> list[float]:
    counts = [min(len(video.frames), len(reference.frames), FIDELITY_FRAMES) for reference in references.videos]
    pairs = zip(references.videos, counts, strict=True)
    return [flow_fidelity(video.flow_field(count), reference.flow_field(count)) for reference, count in pairs]


METRICS: tuple[Metric, ...] = (
    Metric(
        "clip_t",
        "CLIP-T",
        "cosine of the prompt and each frame in CLIP's space",
        ("clip text", "prompt"),
        1,
        lambda video, references: cosine_similarity(video.clip_embeddings, video.models.clip.embed_text(video.prompt)[None]).tolist(),
    ),
    Metric(
        "clip_i",
        "CLIP-I",
        "mean cosine of each frame with the photos in CLIP's space",
        ("clip", "identity"),
        1,
        lambda video, references: identity_per_frame(video.clip_embeddings, references.clip_embeddings).tolist(),
    ),
    Metric(
        "dino_i",
        "DINO-I",
        "mean cosine of each frame with the photos, DINO's class tokens",
        ("dino", "identity"),
        1,
        lambda video, references: identity_per_frame(video.dino_embeddings, references.dino_embeddings).tolist(),
    ),
    Metric(
        "temporal_flickering",
        "T.Flicker",
        "(255 - mean absolute difference of neighbouring frames) / 255",
        (),
        2,
        lambda video, references: flickering_per_pair(video.frames),
    ),
    Metric(
        "temporal_consistency",
        "T.Cons",
        "cosine of neighbouring frames in CLIP's space",
        ("clip",),
        2,
        lambda video, references: consistency_per_pair(video.clip_embeddings).tolist(),
    ),
    Metric(
        "mean_smoothness",
        "Smooth(mean)",
        "(255 - mean absolute difference of a frame and the plain mean of its neighbours) / 255",
        (),
        3,
        lambda video, references: mean_smoothness_per_frame(video.frames),
    ),
    Metric(
        "flow_smoothness",
        "Smooth(flow)",
        "(255 - mean absolute difference of a frame and its neighbours warped half way by RAFT) / 255",
        ("raft",),
        3,
        lambda video, references: flow_smoothness_per_frame(video.frames, video.models.raft),
    ),
    Metric(
        "dynamic_degree",
        "Dynamic",
        "mean length of the largest 5 % of RAFT's flow vectors at 8 fps, in px of the video",
        ("raft",),
        2,
        lambda video, references: video.dynamic_degrees,
    ),
    Metric(
        "motion_fidelity",
        "Motion",
        "likeness of the tracks of patch tokens to each reference video's",
        ("patches", "motion"),
        2,
        _motion_fidelity,
    ),
    Metric(
        "flow_fidelity",
        "Motion(flow)",
        "cosine of RAFT's flow on a coarse grid with each reference video's",
        ("raft", "motion"),
        2,
        _flow_fidelity,
    ),
)
