"""Exact measures of the videos of one result. `docs/benchmark.md` gives the formulas. Videos are (F, 3, 32, 32) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from ..toyworld import world
from ..toyworld.consistency import consistency_along_track
from ..toyworld.paths import EVERY_MOTION
from ..toyworld.scores import background_colors, score_motion, sprite_likeness, track
from ..toyworld.trial import Trial
from ..toyworld.world import Look
from .prompts import Request
from .request_sets import NAMES_NEITHER

MEASURES = {
    "identity": "likeness of the new figure, fused prompts",
    "motion": "likeness of the new motion, fused prompts",
    "identity_top1": "share of fused videos that resemble the figure more than any other sprite",
    "motion_top1": "share of fused videos that resemble the motion more than any other",
    "adherence": "share of frames on the background asked for",
    "known_motion_identity": "likeness of the figure where it is asked to do a known motion",
    "known_motion_motion": "likeness of that known motion",
    "other_subject_look": "likeness of another subject where it is asked to do the new motion",
    "other_subject_motion": "likeness of the new motion there",
    "leak_clip_looks": "share of fused frames that resemble a clip's subject more than any other sprite",
    "leak_motion": "share of known-motion videos that show the new motion instead",
    "leak_figure": "likeness of the figure where another subject is asked for",
    "neither_look": "likeness of another subject where it is asked to do a known motion",
    "neither_motion": "likeness of that known motion",
    "neither_difference": "largest difference there of a colour from the base's own frames, of its range",
    "untriggered_motion": "likeness of a known motion where a figure is asked to do it without the trigger",
    "untriggered_figure": "likeness of the new figure there",
    "untriggered_difference": "largest difference there of a colour from the base's own frames, of its range",
    "consistency": "likeness of the sprite in consecutive frames",
    "dynamic_degree": "cells the sprite moves per frame",
    "dynamic_ratio": "the same, relative to the clips",
}
"""What is measured of a result, in one line each."""
Videos = Mapping[str, Sequence[torch.Tensor]]
"""By set of requests."""


def measure(trial: Trial, requests: Mapping[str, Sequence[Request]], videos: Videos, of_base: Videos) -> dict[str, float]:
    """All of `MEASURES` for the videos of one result, by the sets that `prompts.requests` names; those of sets that are there.

    Args:
        of_base: the base's own videos of the sets that name neither side.
    """
    bank = trial.bank
    sprites = bank.sprites
    figure = sprites.index(trial.figure)
    seen = clip_looks(trial)
    likeness = {name: [sprite_likeness(video, bank) for video in some] for name, some in videos.items()}
    best = torch.cat([per_frame.argmax(1) for per_frame in likeness["fused"]]).tolist()
    dynamic = fmean(cells_per_frame(video) for video in videos["fused"])
    of_clips = fmean(cells_per_frame(clip.frames.movedim(-1, 1).float() / 127.5 - 1) for clip in trial.clips())

    def look_asked_for(name: str) -> float:
        pairs = zip(likeness[name], requests[name], strict=True)
        return fmean(float(per_frame[:, sprites.index(one.look)].mean()) for per_frame, one in pairs)

    measured = {
        **trial.score(videos["fused"]),
        "adherence": fmean(adherence(video, request.background) for video, request in zip(videos["fused"], requests["fused"], strict=True)),
        "leak_clip_looks": fmean(sprites[index] in seen for index in best),
        "consistency": fmean(consistency_along_track(video) for video in videos["fused"]),
        "dynamic_degree": dynamic,
        "dynamic_ratio": dynamic / of_clips,
    }
    scores = {
        name: [score_motion(video, one.motion, trial.motions) for video, one in zip(some, requests[name], strict=True)]
        for name, some in videos.items()
    }
    if "known_motion" in videos:
        sets = [name for name in ("known_motion", "more_known_motions") if name in videos]
        known = [score for name in sets for score in scores[name]]
        measured["known_motion_identity"] = _mean_of([one for name in sets for one in likeness[name]], figure)
        measured["known_motion_motion"] = fmean(score.score for score in known)
        measured["leak_motion"] = fmean(score.best == trial.motion for score in known)
    if "other_subject" in videos:
        measured["other_subject_look"] = look_asked_for("other_subject")
        measured["other_subject_motion"] = fmean(score.score for score in scores["other_subject"])
        measured["leak_figure"] = _mean_of(likeness["other_subject"], figure)
    if "neither" in videos:
        measured["neither_look"] = look_asked_for("neither")
    if "untriggered" in videos:
        measured["untriggered_figure"] = _mean_of(likeness["untriggered"], figure)
    for name in NAMES_NEITHER:
        if name in videos:
            measured[f"{name}_motion"] = fmean(score.score for score in scores[name])
            measured[f"{name}_difference"] = largest_difference(videos[name], of_base[name])
    return {name: measured[name] for name in MEASURES if name in measured}


def clip_looks(trial: Trial) -> set[Look]:
    """The subjects of a trial's clips, read from their captions."""
    phrases = {clip.caption.partition(f" {EVERY_MOTION[trial.motion].phrase} on ")[0] for clip in trial.clips()}
    return {look for look in world.all_looks() if look.phrase in phrases}


def adherence(video: torch.Tensor, background: str) -> float:
    """Share of frames whose median colour is nearest to `background` of all backgrounds."""
    known = torch.tensor(list(world.BACKGROUNDS.values())).float() / 127.5 - 1  # (5, 3)
    shown = torch.cdist(background_colors(video), known).argmin(1)
    return float((shown == list(world.BACKGROUNDS).index(background)).float().mean())


def cells_per_frame(video: torch.Tensor) -> float:
    """Mean distance the sprite's centre moves from frame to frame, in cells; 0 where a frame shows no sprite."""
    centers = track(video)
    return 0.0 if centers is None else float(centers.diff(dim=0).norm(dim=1).mean())


def largest_difference(videos: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """Of any colour of any frame, as a share of its range: 0 where all are the same bit for bit."""
    return max(float((video - other).abs().max()) / 2 for video, other in zip(videos, others, strict=True))


def _mean_of(likeness: Sequence[torch.Tensor], sprite: int) -> float:
    return fmean(float(per_frame[:, sprite].mean()) for per_frame in likeness)
