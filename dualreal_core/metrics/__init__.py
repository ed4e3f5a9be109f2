"""Scores of videos against references: identity, motion, temporal consistency. Plain tensors in, plain numbers out."""

from __future__ import annotations

from .embedding import consistency_per_pair, identity_per_frame
from .evaluation import EncodedVideo, Evaluation, VideoScores, evaluate_embeddings
from .exact import evaluate_toyworld
from .motion import MAX_FRAMES, movement_fidelity, patch_grid, spread_indices

__all__ = [
    "MAX_FRAMES",
    "EncodedVideo",
    "Evaluation",
    "VideoScores",
    "consistency_per_pair",
    "evaluate_embeddings",
    "evaluate_toyworld",
    "identity_per_frame",
    "movement_fidelity",
    "patch_grid",
    "spread_indices",
]
