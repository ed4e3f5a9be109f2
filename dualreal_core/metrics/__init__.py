"""Scores of videos against references: identity, motion, temporal consistency. Plain tensors in, plain numbers out.

What `dualreal evaluate` needs besides (`definitions`, `encoders`, `raft`, `vbench`) is imported from its own modules.
"""

from __future__ import annotations

from .embedding import consistency_per_pair, identity_per_frame
from .evaluation import EncodedVideo, Evaluation, VideoScores, evaluate_embeddings, with_frame_scores
from .exact import evaluate_toyworld
from .motion import MAX_FRAMES, MIN_REFERENCE_FRAMES, movement_fidelity, num_reference_frames, patch_grid, spread_indices, thinned

__all__ = [
    "MAX_FRAMES",
    "MIN_REFERENCE_FRAMES",
    "EncodedVideo",
    "Evaluation",
    "VideoScores",
    "consistency_per_pair",
    "evaluate_embeddings",
    "evaluate_toyworld",
    "identity_per_frame",
    "movement_fidelity",
    "num_reference_frames",
    "patch_grid",
    "spread_indices",
    "thinned",
    "with_frame_scores",
]
