"""What an exported LoRA holds of a blend: fixed weights, or their mean over denoising; what is lost by it; and factors for each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from ..method.attach import default_blend
from ..method.blend import PLANS, Blend
from ..method.blend_weights import BlendWeights, Denoising, StepFactors, stage_of
from ..method.curves import BlendCurves, parse_curves
from ..method.experts import experts_of
from ..method.family_steps import even_steps
from ..method.pair import ROLES, AdapterPair, PairConfig, Role
from ..method.presets import PRESETS

SIDES: dict[str, tuple[tuple[Role, ...], ...]] = {
    "mix": (ROLES,),
    "both": (("identity",), ("motion",)),
    "identity": (("identity",),),
    "motion": (("motion",),),
}
"""By what is asked for, the sides that go into each file."""
SHIFTS = {"wan": 8.0, "hunyuan": 7.0, "kandinsky5": 10.0, "ltx": math.exp(2.37), "ltx2": math.exp(2.37), "minimax-h3": 12.0}
"""By family, the shift at which ComfyUI samples it where no node says otherwise."""
BOUNDARY = 0.875
"""Noise level at which two experts switch where a pair does not say: that of Wan 2.2 text to video."""
MEAN_STEPS = 50
"""Steps over which a mean is taken where none are named."""
OWN = "own"


class BlendMaker(Protocol):
    """A plan or curves, made into a blend for a pair."""

    def blend(self, config: PairConfig) -> Blend:
        """At the scale and with the groups of a pair."""


@dataclass(frozen=True)
class ExportPlan:
    """Attributes:
    weights: of each group of blocks of all experts, by role, in units of the even weight: what files hold.
    by_expert: the blend over denoising, by the name of the expert ('' of one DiT); of fixed weights these at each step.
    blend: it in words.
    """

    weights: dict[Role, list[float]]
    by_expert: dict[str, BlendWeights] = field(default_factory=dict)
    blend: str = "even"

    def losses(self, roles: Sequence[Role]) -> list[str]:
        """Sentences on what files of fixed weights lose."""
        said = []
        for expert, own in self.by_expert.items():
            for role in roles:
                stray = own.strays(role)
                if stray.off > 1e-4:
                    whose = f"The {role}'s weight" + (f" in the {expert} expert" if expert else "")
                    said.append(
                        f"{whose} runs from {stray.least:.3g} to {stray.most:.3g} over denoising and depth; the file "
                        f"holds its mean over denoising, from which it strays by {stray.off:.0%}."
                    )
            said.append(own.left_out)
        return [one for one in dict.fromkeys(said) if one]

    def step_factors(self, role: Role) -> dict[str, StepFactors]:
        """By expert, factors on a file of one side that bring the blend back."""
        total = len(self.weights[role]) // max(1, len(self.by_expert))
        held = {name: self.weights[role][index * total : (index + 1) * total] for index, name in enumerate(self.by_expert)}
        return {name: own.step_factors(role, held[name]) for name, own in self.by_expert.items()}


def plan_export(
    pair: AdapterPair, fixed: Mapping[Role, float] | None = None, blend: BlendMaker | str | None = None, denoising: Denoising | None = None,
    shift: float | None = None, strengths: Mapping[Role, float] | None = None,
) -> ExportPlan:  # fmt: skip
    """What files hold of a pair.

    Args:
        fixed: weights of both sides, in units of the even weight. With a blend as well, files hold these and the blend is for step factors.
        blend: a plan or curves, or data of Blend Map as text; None: the pair's own, where it has one and no fixed weights are given, or the
            same throughout.
        denoising: the steps over which the mean is taken and for which there are factors; None: `MEAN_STEPS`, evenly spaced.
        shift: of the model; None: `SHIFTS`.
        strengths: factors on the weights of both sides.

    Raises:
        InputError: the blend is of another pair, or has no fixed numbers; or an expert has no step of a blend that changes.
    """
    experts, parts = pair.config.experts or ("",), experts_of(pair)
    shift = SHIFTS.get(pair.config.family, 1.0) if shift is None else shift
    denoising = denoising or even_steps(pair.config.family, MEAN_STEPS, shift)
    takes_own = blend is None and fixed is None and has_own_blend(pair)
    is_constant = blend is None and not takes_own
    factors = fixed if is_constant and fixed is not None else strengths
    by_expert = {}
    switch = pair.config.boundary or BOUNDARY
    spans = [(0.0, math.inf)] if len(parts) == 1 else [(switch, math.inf), (0.0, switch)]
    for name, part, span in zip(experts, parts, spans, strict=True):
        steps = denoising.within(*span)
        if not steps.sigmas and part.sides and not (is_constant or isinstance(blend, str)):
            raise InputError(
                f"No step is one of the {name} expert, which runs at sigmas {_span(span)}: give the steps of the whole sampling."
            )
        own = _weights(part, BlendCurves() if is_constant else blend, steps, shift, span)
        by_expert[name] = own if factors is None else own.times([factors.get(role, 1.0) for role in ROLES])
    total = pair.config.total_groups
    if fixed is not None:
        weights = {role: [float(fixed[role])] * total for role in ROLES if role in fixed}
    elif is_constant:
        weights = {role: [strengths[role] if strengths else 1.0] * total for role in ROLES}
    else:
        weights = {role: [weight for own in by_expert.values() for weight in own.mean(role)] for role in ROLES}
    if fixed is not None:
        said = "fixed weights"
    elif blend is None:
        said = "the pair's own" if takes_own else "even"
    else:
        said = "data of Blend Map" if isinstance(blend, str) else str(blend)
    return ExportPlan({role: own for role, own in weights.items() if role in pair.sides}, by_expert, said)


def has_own_blend(pair: AdapterPair) -> bool:
    """Whether a pair brings a StageBlender or a share schedule."""
    return pair.controller is not None or bool(pair.config.share_schedule)


def read_blend(text: str) -> BlendMaker | str | None:
    """A blend as people name it: a preset, the text of curves, a file of either, or data of Blend Map; None: the pair's own.

    Raises:
        InputError: it is nothing of the kind.
    """
    named = text.strip()
    if named == OWN:
        return None
    if named in PRESETS or named in PLANS:
        return PRESETS.get(named) or PLANS[named]
    if "\n" not in named and len(named) < 1024 and Path(named).is_file():
        try:
            named = Path(named).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{text} cannot be read as text ({error}): give a file of blend curves or of Blend Map's data.") from error
    if named.startswith("{"):
        return named
    if ":" not in named:
        raise InputError(
            f"There is no blend {text!r}: give {OWN!r}, {', '.join(map(repr, dict.fromkeys([*PRESETS, *PLANS])))}, curves such as "
            "'identity sigma 1:0.4 0:1.4', or a file of curves or of Blend Map's data."
        )
    return parse_curves(named)


def _span(span: tuple[float, float]) -> str:
    least, most = span
    return f"below {most:g}" if most <= 1 else f"of {least:g} and more"


def _weights(part: AdapterPair, blend: BlendMaker | str | None, own: Denoising, shift: float, span: tuple[float, float]) -> BlendWeights:
    if isinstance(blend, str):
        least, most = span
        return BlendWeights.recorded(blend, part, 0.0 if most > 1 else stage_of(most, shift), stage_of(least, shift) if least else 1.0)
    return BlendWeights.of(default_blend(part) if blend is None else blend.blend(part.config), part, own)
