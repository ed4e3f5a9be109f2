"""Merges of two sides' updates of a layer into one. TIES, DARE and magnitude pruning are peft's own functions, on whole weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...method.pair import AdapterPair
from .deltas import Deltas, deltas_of, pair_of

Merge = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(identity's update, motion's update) of a layer, both (out, in) -> the merged one."""


def ties(identity: torch.Tensor, motion: torch.Tensor, density: float, strength: float) -> torch.Tensor:
    """Trim to the largest entries, elect the sign of their sum, take the mean of those of that sign (Yadav et al., 2023)."""
    from peft.utils import merge_utils

    return merge_utils.ties([identity, motion], torch.full((2,), strength), density)


def dare(identity: torch.Tensor, motion: torch.Tensor, density: float) -> torch.Tensor:
    """Drop entries at random, scale up the others, sum (Yu et al., 2024). Draws from torch's generator."""
    from peft.utils import merge_utils

    return merge_utils.dare_linear([identity, motion], torch.ones(2), density)


def magnitude_prune(identity: torch.Tensor, motion: torch.Tensor, density: float) -> torch.Tensor:
    """The sum of the largest entries of each."""
    from peft.utils import merge_utils

    return merge_utils.magnitude_prune([identity, motion], torch.ones(2), density)


def project(identity: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
    """The sum, after the identity was made orthogonal to the outputs that the motion writes to."""
    written, sizes, _ = torch.linalg.svd(motion, full_matrices=False)
    written = written[:, sizes > 1e-5 * sizes[0].clamp(min=1e-12)]  # (out, rank of the motion)
    return identity - written @ (written.T @ identity) + motion


def merged(identity: AdapterPair, motion: AdapterPair, merge: Merge, seed: int = 0) -> AdapterPair:
    """A one-sided pair of the merged updates, to be used at weight 1; layers that one side alone changes stay as they are.

    Args:
        seed: of what a merge draws.
    """
    sides: tuple[Deltas, Deltas] = deltas_of(identity, "identity"), deltas_of(motion, "motion")
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        both = {key: [side[key] for side in sides if key in side] for key in keys}
        return pair_of({key: merge(*updates) if len(updates) == 2 else updates[0] for key, updates in both.items()}, identity)
