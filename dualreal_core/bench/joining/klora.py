"""K-LoRA's choice (Ouyang et al., 2025): in each layer, at each step, the side whose largest entries weigh more acts alone.

The paper favours content early and style late. Here the motion is favoured early, in noise, and the identity late.
"""

from __future__ import annotations

import torch

from ...method.combine import combine
from ...method.pair import ROLES, AdapterPair, Role
from .deltas import delta_of

ALPHA, BETA = 1.5, 0.5
"""The paper's: the tilt rises from `BETA` to `ALPHA + BETA` over denoising."""


class KLoRA:
    """The pairs of the choices that are made over denoising. In each of them a layer has one adapter.

    Args:
        shift: of the sampler's schedule, by which a noise level tells how many of its steps are done.
    """

    def __init__(self, identity: AdapterPair, motion: AdapterPair, shift: float = 1.0, alpha: float = ALPHA, beta: float = BETA) -> None:
        self.pair, self.shift, self.alpha, self.beta = combine(identity, motion), shift, alpha, beta
        self.ratios = ratios(self.pair)
        self._pairs: dict[frozenset[str], AdapterPair] = {}

    def tilt(self, noise_level: float) -> float:
        """Factor in favour of the identity, by the share of the steps that are done."""
        left = noise_level / (noise_level + self.shift * (1 - noise_level))
        return self.alpha * (1 - left) + self.beta

    def pair_at(self, noise_level: float) -> AdapterPair:
        """The pair that acts at a noise level."""
        tilt = self.tilt(noise_level)
        chosen = frozenset(key for key, ratio in self.ratios.items() if ratio * tilt >= 1)
        if chosen not in self._pairs:
            kept = {"identity": chosen, "motion": frozenset(self.ratios) - chosen}
            self._pairs[chosen] = part_of(self.pair, kept)
        return self._pairs[chosen]


def ratios(pair: AdapterPair) -> dict[str, float]:
    """Sum of the K largest entries of the identity's update over that of the motion's, K the product of their ranks; by layer.

    As in the paper the sides are brought to one size by the sums of all their entries.
    """
    sides = {role: {key: delta_of(adapter).abs() for key, adapter in pair.sides[role].items()} for role in ROLES}
    both = [key for key in sides["identity"] if key in sides["motion"]]
    totals = {role: sum(float(sides[role][key].sum()) for key in both) for role in ROLES}
    gamma = totals["motion"] / totals["identity"]

    def largest(role: Role, key: str) -> float:
        count = pair.sides["identity"][key].down.out_features * pair.sides["motion"][key].down.out_features
        values = sides[role][key].flatten()
        return float(values.topk(min(count, len(values))).values.sum())

    return {key: gamma * largest("identity", key) / largest("motion", key) for key in both}


def part_of(pair: AdapterPair, kept: dict[Role, frozenset[str]]) -> AdapterPair:
    """A pair with some of the adapters of another one, whose weights they stay."""
    with torch.device("meta"):
        part = AdapterPair(pair.config, lora_shapes={role: {} for role in ROLES})
    for role in ROLES:
        part.sides[role].update({key: adapter for key, adapter in pair.sides[role].items() if key in kept[role]})
    return part
