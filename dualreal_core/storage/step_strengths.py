"""Strengths for each step as other programs take them beside a LoRA file: float lists of WanVideoWrapper, multipliers of Wan2GP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..method.blend_weights import StepFactors

DIGITS = 4
NEGLIGIBLE = 5e-3
"""Of a weight, below which an error is not worth a word."""


@dataclass(frozen=True)
class FileStrengths:
    """Strengths of one LoRA file at the steps at which its model runs.

    Attributes:
        file: its name.
        phase, num_phases: which of the experts it is for, and how many there are.
    """

    file: str
    factors: StepFactors
    phase: int = 0
    num_phases: int = 1


def wan2gp_multiplier(own: FileStrengths) -> str:
    """One LoRA's word among the multipliers of Wan2GP: commas between steps, semicolons between phases, which are the experts."""
    numbers = [_number(one) for one in own.factors.factors] or ["0"]
    phases = ["0"] * own.num_phases
    phases[own.phase] = numbers[0] if len(set(numbers)) == 1 else ",".join(numbers)
    return ";".join(phases)


def float_list(own: FileStrengths) -> str:
    """Floats for `strength` of WanVideo Lora Select, from the first step of the sampler that the LoRA is loaded for."""
    return ", ".join(_number(one) for one in own.factors.factors)


TOOLS: dict[str, tuple[str, Callable[[FileStrengths], str]]] = {
    "wan2gp": ("Wan2GP, Loras Multipliers, in the order of the LoRAs and separated by spaces", wan2gp_multiplier),
    "wrapper": ("WanVideoWrapper, a list of floats into strength of WanVideo Lora Select, merge_loras off", float_list),
}
"""By name, where the text goes, and how it is written."""


def strengths_text(tool: str, files: Sequence[FileStrengths]) -> str:
    """A line for each file, and what is off."""
    title, write = TOOLS[tool]
    lines = [f"{title}:", *(f"  {own.file}: {write(own)}" for own in files)]
    if tool == "wan2gp" and len(files) > 1:
        lines.append(f"  all: {' '.join(map(write, files))}")
    off = [(own.file, own.factors.error) for own in files if own.factors.error > NEGLIGIBLE]
    lines += [f"  {file}: off by {error:.2g} of a weight at most, as depth changes it otherwise at each step." for file, error in off]
    return "\n".join(lines)


def _number(factor: float) -> str:
    return f"{factor:.{DIGITS}g}"
