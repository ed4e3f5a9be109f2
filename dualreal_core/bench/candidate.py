"""What a method comes to, as it is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..method.blend import Blend
    from ..method.pair import AdapterPair, Role
    from .joining.turns import PairAt


@dataclass(frozen=True)
class Candidate:
    """What is sampled: the base with a pair, with other weights, or as it is.

    Attributes:
        weights: of the DiT, instead of the base's own.
        blend: instead of the pair's own.
        adapts_negative: see `SamplingSettings`.
        strengths: factors on the weights of both sides of the pair; None: 1.
        turns: pairs by noise level, instead of one.
        note: what was chosen, for the result.
    """

    pair: AdapterPair | None = None
    weights: dict[str, torch.Tensor] | None = None
    blend: Blend | None = None
    adapts_negative: bool = False
    strengths: Mapping[Role, float] | None = None
    turns: PairAt | None = None
    note: str = ""
