"""The joiners of the two-LoRA benchmark by the names of their methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ...bases import Base
from ...method.blend import FixedBlend
from ...method.combine import combine
from ...method.curves import parse_curves
from ...method.pair import AdapterPair
from ...toyworld.trial import Trial
from ..candidate import Candidate
from ..gated_lora import gated_pair
from . import merges
from .balance import balanced
from .forms import BEST_FORM, curves_of
from .klora import KLoRA
from .peft_adapters import combined
from .picked import picked
from .previewed import previewed
from .reconcile import between

Joiner = Callable[[Base, Trial, Sequence[AdapterPair], Mapping[str, float]], Candidate]
"""(base, trial, what the method's runs trained, its settings) -> what is sampled."""
FULL = FixedBlend(1.0, 1.0)
"""Each side as its LoRA file says, at strength 1."""


def _picked(base: Base, trial: Trial, sides: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
    return picked(base, trial, *sides)


def _previewed(base: Base, trial: Trial, trained: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
    return previewed(base, trial, *trained)


def _k_lora(base: Base, trial: Trial, sides: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
    return Candidate(blend=FULL, turns=KLoRA(*sides, shift=base.objective.shift, **settings).pair_at)


def _norm_balance(base: Base, trial: Trial, sides: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
    return Candidate(balanced(*sides), blend=FULL)


def _merging(merge: Callable[..., torch.Tensor]) -> Joiner:
    def join(base: Base, trial: Trial, sides: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
        return Candidate(merges.merged(*sides, lambda identity, motion: merge(identity, motion, **settings), trial.seed), blend=FULL)

    return join


def _peft(how: str) -> Joiner:
    def join(base: Base, trial: Trial, sides: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
        return Candidate(combined(base.transformer, *sides, how, settings.get("density"), trial.seed), blend=FULL)

    return join


def _half_reconciled(base: Base, trial: Trial, trained: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
    identity, motion, reconciled = trained
    pair = between(identity, reconciled, motion)
    return Candidate(pair, blend=curves_of(BEST_FORM, settings["identity_early"]).blend(pair.config))


def _jointtuner(base: Base, trial: Trial, trained: Sequence[Mapping[str, torch.Tensor]], settings: Mapping[str, float]) -> Candidate:
    return Candidate(gated_pair(base, trained[0]))


def _smrabooth(base: Base, trial: Trial, sides: Sequence[AdapterPair], settings: Mapping[str, float]) -> Candidate:
    """The identity at a low weight until the switch, given in steps of denoising, and at twice that afterwards."""
    left, early = 1 - settings["switch"], settings["identity_early"]
    level = left * base.objective.shift / (1 + (base.objective.shift - 1) * left)
    curves = parse_curves(f"identity sigma 1:{early} {level}:{early} {level - 1e-3}:{2 * early} 0:{2 * early}")
    pair = combine(*sides)
    return Candidate(pair, blend=curves.blend(pair.config))


JOINERS: dict[str, Joiner] = {
    "jointtuner": _jointtuner,
    "smrabooth": _smrabooth,
    "picked": _picked,
    "previewed": _previewed,
    "k-lora": _k_lora,
    "norm-balance": _norm_balance,
    "ties": _merging(merges.ties),
    "dare": _merging(merges.dare),
    "projection": _merging(merges.project),
    "peft-linear": _peft("linear"),
    "peft-svd": _peft("svd"),
    "peft-ties": _peft("ties"),
    "peft-dare-linear": _peft("dare_linear"),
    "peft-magnitude-prune": _peft("magnitude_prune"),
    "half-reconciled": _half_reconciled,
}
