"""The weights of a blend over denoising as numbers: their mean, which a file of fixed weights can hold, and factors for each step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from ..errors import InputError
from .blend import Blend, LearnedBlend, SharePlan
from .pair import ROLES, AdapterPair, Role

NO_GATE = "The pair's prompt gate reads each prompt, which files of fixed weights do not: both sides act whatever it says."

OF_ONE_PROMPT = "The pair's prompt gate is in the data of Blend Map as it stood for that run's prompt, and the file acts so for any."


@dataclass(frozen=True)
class Denoising:
    """The steps of a sampling.

    Attributes:
        sigmas: noise level at each step, falling from 1.
        stages: where each lies in denoising, 0 (noise) to 1, by the shift of the model.
    """

    sigmas: tuple[float, ...]
    stages: tuple[float, ...]

    @classmethod
    def of_steps(cls, num_steps: int, shift: float = 1.0) -> Denoising:
        """Steps evenly spaced before the shift, as samplers of flow models take them.

        Raises:
            InputError: there is no step, or the shift is not positive.
        """
        if num_steps < 1 or not 0 < shift < math.inf:
            raise InputError(f"{num_steps} steps at a shift of {shift:g} are no sampling: give at least one step and a positive shift.")
        stages = tuple(step / num_steps for step in range(num_steps))
        return cls(tuple(shift * (1 - stage) / (1 + (shift - 1) * (1 - stage)) for stage in stages), stages)

    @classmethod
    def of_sigmas(cls, sigmas: Sequence[float], shift: float = 1.0) -> Denoising:
        """Steps at sigmas as a scheduler lists them; a last 0, at which no step begins, is left out.

        Raises:
            InputError: they do not fall, or lie outside 0 to 1.
        """
        own = tuple(sigmas[:-1] if len(sigmas) > 1 and sigmas[-1] == 0 else sigmas)
        if not own or not all(0 < sigma <= 1 for sigma in own) or any(now <= then for now, then in pairwise(own)):
            raise InputError(f"sigmas are {', '.join(f'{one:g}' for one in sigmas)}: they must fall from at most 1 and stay above 0.")
        return cls(own, tuple(stage_of(sigma, shift) for sigma in own))

    @property
    def steps(self) -> list[tuple[float, float]]:
        """(stage, sigma) of each."""
        return list(zip(self.stages, self.sigmas, strict=True))

    def within(self, least: float, most: float) -> Denoising:
        """The steps at which an expert runs: sigmas from `least` on and below `most`."""
        kept = [index for index, sigma in enumerate(self.sigmas) if least <= sigma < most]
        return Denoising(tuple(self.sigmas[index] for index in kept), tuple(self.stages[index] for index in kept))


def stage_of(sigma: float, shift: float) -> float:
    """Where in denoising, 0 (noise) to 1, a flow model of that shift meets a noise level."""
    return 1 - sigma / (shift - (shift - 1) * sigma)


@dataclass(frozen=True)
class BlendWeights:
    """Weights (S, G, 2) of a blend at the steps of a denoising, in units of the even weight.

    Attributes:
        left_out: a sentence on what the numbers do not say; empty where they are exact.
    """

    table: torch.Tensor
    left_out: str = ""

    @classmethod
    def of(cls, blend: Blend, pair: AdapterPair, denoising: Denoising) -> BlendWeights:
        """Those of a blend in a pair for one DiT. Of a StageBlender its schedule, as what it has learned follows the video.

        Raises:
            InputError: the StageBlender has no schedule to keep to.
        """
        config, left_out = pair.config, ""
        if isinstance(blend, LearnedBlend):
            if config.learned_range >= 0.5 and not config.share_schedule:
                raise InputError(
                    "The weights of this pair's StageBlender follow the video, so they are no fixed numbers: sample once and give the data "
                    "of Blend Map, or choose a blend."
                )
            left_out = f"The StageBlender's own part, up to {2 * config.learned_range:.2g} of the even weight, follows the video."
            blend = SharePlan(stages=config.share_schedule or (0.5,)).blend(config)
        if pair.gate is not None:
            left_out = f"{left_out} {NO_GATE}".lstrip()
        nothing = torch.zeros(1, 1)
        given = [blend.scheduled(stage, sigma) for stage, sigma in denoising.steps]
        weights = [blend.weights(nothing, [], numbers)[0].expand(config.num_groups, 2) for numbers in given]
        return cls(torch.stack(weights) / (config.scale / 2), left_out) if weights else cls(torch.zeros(0, config.num_groups, 2), left_out)

    @classmethod
    def recorded(cls, text: str, pair: AdapterPair, begin: float = 0.0, end: float = 1.0) -> BlendWeights:
        """Those that a run used, as Blend Map gives them.

        Args:
            begin, end: stages of denoising between which an expert runs.

        Raises:
            InputError: the text is nothing of the kind, or of other groups of blocks.
        """
        try:
            record = json.loads(text)
            table = torch.tensor([record[role] for role in ROLES], dtype=torch.float32).permute(1, 2, 0)  # (S, G, 2)
            if (begin, end) != (0.0, 1.0):
                table = table[[begin <= float(stage) <= end for stage in record["stages"]]]
        except (IndexError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise InputError(f"This is no data of Blend Map ({error}): give its whole output 'data'.") from error
        if not len(table) and any(pair.sides.values()):
            raise InputError(
                f"The data of Blend Map hold no step at stages {begin:.3g} to {end:.3g}, where one of the experts runs: give those of the "
                "whole sampling, by a Blend Map with both MODELs."
            )
        if not table.isfinite().all():
            raise InputError("The data of Blend Map hold values that are no numbers (NaN): give those of a run that made a video.")
        if table.shape[1] != pair.config.num_groups:
            raise InputError(
                f"The data of Blend Map are of {table.shape[1]} groups of blocks, and the pair has {pair.config.num_groups}: give those of "
                "a run with this pair."
            )
        return cls(table / (pair.config.scale / 2), "" if pair.gate is None else OF_ONE_PROMPT)

    def times(self, strengths: Sequence[float]) -> BlendWeights:
        """With factors on both sides, identity first."""
        return replace(self, table=self.table * torch.tensor(strengths))

    def mean(self, role: Role) -> list[float]:
        """Weight of each group, over all steps; 0 where there are none."""
        own = self.table[..., ROLES.index(role)]
        return own.mean(dim=0).tolist() if len(own) else [0.0] * own.shape[1]

    def strays(self, role: Role) -> Stray:
        """How far a side's weights lie from their mean."""
        own = self.table[..., ROLES.index(role)]
        if not len(own):
            return Stray(0.0, 0.0, 0.0)
        off = (own - own.mean(dim=0)).square().mean().sqrt()
        return Stray(float(own.min()), float(own.max()), float(off / own.square().mean().sqrt().clamp(min=1e-12)))

    def step_factors(self, role: Role, held: Sequence[float]) -> StepFactors:
        """Factors by which a file comes closest to the blend, one for each step.

        Args:
            held: the weights of groups that the file holds.
        """
        own, fixed = self.table[..., ROLES.index(role)], torch.tensor(held)
        factors = own @ fixed / fixed.square().sum().clamp(min=1e-12)
        return StepFactors(tuple(factors.tolist()), float((factors[:, None] * fixed - own).abs().max()) if len(own) else 0.0)


@dataclass(frozen=True)
class Stray:
    """Attributes:
    least, most: of a side's weights.
    off: root mean square of what they lie off their mean, relative to that of the weights.
    """

    least: float
    most: float
    off: float


@dataclass(frozen=True)
class StepFactors:
    """Attributes:
    factors: one for each step.
    error: by how much a weight is off at most; 0 where the blend is a curve over denoising times one over depth.
    """

    factors: tuple[float, ...]
    error: float
