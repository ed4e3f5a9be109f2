"""Rotations out of what trainers keep of them: skew-symmetric matrices, whole or as vectors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch

NUM_TERMS = 5
"""Of peft's approximation, where its configuration says no other number."""


def cayley(blocks: torch.Tensor, largest: float = 0.0) -> torch.Tensor:
    """`(I + Q) (I - Q)^-1` of `Q = blocks - blocks^T`, whose norm over all blocks is at most `largest` where that is positive."""
    skew = blocks - blocks.transpose(-1, -2)
    if largest > 0:
        norm = float(skew.norm()) + 1e-8
        skew = skew * (largest / norm) if norm > largest else skew
    identity = torch.eye(blocks.shape[-1])
    return torch.linalg.solve(identity - skew, identity + skew, left=False)


def of_skew_vectors(vectors: torch.Tensor, config: Mapping[str, object], is_scaled: bool = False) -> torch.Tensor:
    """peft's rotations (N, B, B) of the upper triangles (N, B (B - 1) / 2) of skew matrices: `(I - Q) (I + Q)^-1`, or its series.

    Args:
        config: peft's configuration, of which it depends whether the series is taken, and how much of it.
        is_scaled: whether the vectors are in units that do not depend on the size of the blocks, as OneTrainer's.
    """
    size = round((1 + math.sqrt(1 + 8 * vectors.shape[1])) / 2)
    rows, columns = torch.triu_indices(size, size, 1)
    vectors = vectors / (2 * math.sqrt(size - 1)) if is_scaled else vectors
    skew = torch.zeros(len(vectors), size, size)
    skew[:, rows, columns] = vectors
    skew = skew - skew.transpose(-1, -2)
    identity = torch.eye(size)
    if config.get("use_cayley_neumann", True) is False:
        return torch.linalg.solve(identity + skew, identity - skew, left=False)
    terms, is_former = config.get("num_cayley_neumann_terms", NUM_TERMS), _is_former(config)
    terms = terms if isinstance(terms, int) and 1 <= terms <= 64 else NUM_TERMS
    terms = 4 if terms == 3 and not is_former else terms  # of 3, peft takes 4
    turn, power = identity.expand_as(skew).clone(), identity
    for term in range(1, terms):
        power = power @ skew
        turn = turn + power * (1.0 if term == terms - 1 and term > 1 and not is_former else 2.0)
    return turn


def _is_former(config: Mapping[str, object]) -> bool:
    """Whether peft's configuration is of before 0.18, whose series takes the last power twice too; it did not name its version."""
    version = re.match(r"(\d+)\.(\d+)", str(config.get("peft_version") or "0.0"))
    return bool(config) and (version is None or tuple(map(int, version.groups())) < (0, 18))
