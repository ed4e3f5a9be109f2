"""Scores of one video from encoders whose vectors are known, worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_encoders import spot_clip, spot_flow, straight

from dualreal_core.errors import InputError
from dualreal_core.metrics.features import Models, References, VideoFeatures
from dualreal_core.metrics.registry import METRICS, NEEDS
from dualreal_core.metrics.scores import VideoScores, mean_scores, measure
from dualreal_core.video import Clip

HALF = math.sqrt(0.5)


def close(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


class Grey:
    """Knows pictures by their brightness (0 to 255), prompts by their words."""

    has_text = True

    def __init__(self, vectors: dict[object, list[float]]) -> None:
        self.vectors = vectors

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.tensor([self.vectors[int(frame.max())] for frame in frames])

    def embed_text(self, prompt: str) -> torch.Tensor:
        return torch.tensor(self.vectors[prompt])


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)


CLIP = Grey({0: [2.0, 0.0], 100: [1.0, 1.0], 200: [0.0, 3.0], 50: [1.0, 0.0], 60: [0.0, 5.0], "a dog": [4.0, 0.0]})
DINO = Grey({0: [1.0, 0.0], 100: [0.0, 1.0], 200: [-1.0, 0.0], 50: [7.0, 0.0], 60: [7.0, 0.0]})


def measured(frames: torch.Tensor, models: Models, photos: tuple[int, ...] = (), shown: tuple[Clip, ...] = (), **options) -> VideoScores:
    options = {"fps": 8.0, "prompt": None, **options}
    videos = [VideoFeatures(models, clip.frames, clip.fps, num_motion_frames=9) for clip in shown]
    references = References(models, [grey(level) for level in photos], videos)
    return measure(VideoFeatures(models, frames, options["fps"], options["prompt"], 9), references)


def test_embedding_scores_in_closed_form():
    video = measured(grey(0, 100, 200), Models(CLIP, DINO), (50, 60), prompt="a dog")
    assert video.curves["clip_t"] == [close(1), close(HALF), close(0)]
    assert video.curves["clip_i"] == [close(0.5), close(HALF), close(0.5)]
    assert video.curves["dino_i"] == [close(1), close(0), close(-1)]
    assert video.curves["temporal_consistency"] == [close(HALF), close(HALF)]
    assert video.curves["temporal_flickering"] == [close(155 / 255)] * 2
    assert video.curves["mean_smoothness"] == [close(1)]
    assert video.scores["clip_t"] == close((1 + HALF) / 3)
    assert video.scores["clip_i"] == close((1 + HALF) / 3)
    assert video.scores["dino_i"] == close(0)
    assert set(video.not_measured) == {"flow_smoothness", "dynamic_degree", "motion_fidelity", "flow_fidelity"}
    assert (video.is_moving, video.reference_dynamic_degree) == (None, None)


def test_dynamic_degree_stands_beside_that_of_the_references():
    models = Models(raft=spot_flow)
    small = Clip(spot_clip(straight(4, 3, 0)), 8)  # 48 px high, 3 px a step
    large = Clip(spot_clip(straight(4, 5, 0), side=16, size=(96, 128)), 8)  # twice the size, 5 px a step
    video = measured(spot_clip(straight(5, 1, 0)), models, shown=(small, large))
    assert video.curves["dynamic_degree"] == [close(1)] * 4
    assert video.reference_dynamic_degree == close((3 + 5 / 2) / 2)
    assert video.curves["flow_fidelity"] == [close(1), close(1)]
    assert video.is_moving is False  # 1 px is below 6 px * 48 / 256
    assert measured(spot_clip(straight(5, 2, 0)), models).is_moving is True
    assert measured(spot_clip(straight(5, 2, 0)), models).reference_dynamic_degree is None


def test_dynamic_degree_looks_at_eight_frames_per_second():
    video = measured(spot_clip(straight(7, 1, 0)), Models(raft=spot_flow), fps=24.0)
    assert video.curves["dynamic_degree"] == [close(3), close(3)]


def test_means_are_over_the_videos_on_which_a_metric_is_measured():
    videos = [measured(grey(*levels), Models(CLIP), (50,)) for levels in ([0, 200], [0], [100, 100])]
    means = mean_scores(videos)
    assert means["temporal_flickering"] == {"mean": close((55 / 255 + 1) / 2), "num_videos": 2}
    assert means["clip_i"] == {"mean": close((0.5 + 1 + HALF) / 3), "num_videos": 3}
    assert means["dino_i"] == {"mean": None, "num_videos": 0}


def test_patches_come_from_dino_where_there_is_one():
    assert Models(CLIP, DINO).patches is DINO
    assert Models(CLIP).patches is CLIP
    assert Models().patches is None


def test_a_model_that_gives_no_numbers_is_refused():
    broken = SimpleNamespace(embed=lambda frames: torch.full((len(frames), 2), math.nan), has_text=False)
    with pytest.raises(InputError, match=r"T\.Cons came out as no number"):
        measured(grey(0, 100), Models(broken))


def test_every_need_of_a_metric_is_known():
    assert {need for metric in METRICS for need in metric.needs} == set(NEEDS)
