"""Strengths for each step as other programs take them beside a LoRA file: float lists of WanVideoWrapper, multipliers of Wan2GP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..method.blend_weights import StepFactors

DIGITS = 4
NEGLIGIBLE = 5e-3
"""Of a weight, below which an error is not worth a word."""


def wan2gp_multiplier(factors: StepFactors, phase: int = 0, num_phases: int = 1) -> str:
    """One LoRA's word among the multipliers of Wan2GP: commas between steps, semicolons between phases, which are the experts."""
    phases = ["0"] * num_phases
    phases[phase] = _listed(factors.factors, ",")
    return ";".join(phases)


def wrapper_list(factors: StepFactors, phase: int = 0, num_phases: int = 1) -> str:
    """A float list for `strength` of WanVideo Lora Select, from the first step of the sampler that the LoRA is loaded for."""
    return ", ".join(_number(one) for one in factors.factors)


TOOLS: dict[str, tuple[str, Callable[[StepFactors, int, int], str]]] = {
    "wan2gp": ("Wan2GP, Loras Multipliers, in the order of the LoRAs and separated by spaces", wan2gp_multiplier),
    "wrapper": ("WanVideoWrapper, a list of floats into strength of WanVideo Lora Select, merge_loras off", wrapper_list),
}
"""By name, where the text goes, and how it is written."""


def strengths_text(tool: str, factors: Mapping[Path, tuple[StepFactors, int, int]]) -> str:
    """A line for each file, and what is off.

    Args:
        factors: by file, its factors, its phase and the number of phases.
    """
    title, write = TOOLS[tool]
    words = {path: write(*own) for path, own in factors.items()}
    lines = [f"{title}:", *(f"  {path.name}: {word}" for path, word in words.items())]
    if tool == "wan2gp" and len(words) > 1:
        lines.append(f"  all: {' '.join(words.values())}")
    off = [(path.name, own[0].error) for path, own in factors.items() if own[0].error > NEGLIGIBLE]
    lines += [f"  {name}: off by {error:.2g} of a weight at most, as depth changes it otherwise at each step." for name, error in off]
    return "\n".join(lines)


def _listed(factors: Sequence[float], separator: str) -> str:
    numbers = [_number(one) for one in factors] or ["0"]
    return numbers[0] if len(set(numbers)) == 1 else separator.join(numbers)


def _number(factor: float) -> str:
    return f"{factor:.{DIGITS}g}"
