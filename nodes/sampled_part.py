"""What a pair did in one sampling, and which samplings together made a latent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..dualreal_core.method.blend import BlendRecord

MAX_PARTS = 64
"""Samplings that a MODEL remembers: a server may run the same one for weeks."""
SAME_SIGMA = 1 + 1e-4
EMPTY = ""
"""The mark of latents that hold nothing yet."""


@dataclass(frozen=True)
class SampledPart:
    """One sampling: all of denoising, or a part of it.

    Attributes:
        given, made: `latent_mark` of the latents it began with and of those it made.
        start, end: sigmas at which it began and ended; it is finished where the end is 0.
        end_stage: position of the end in denoising, 0 (noise) to 1.
        record: weights that were used.
        prompt: ComfyUI's id of the graph's run that it belonged to.
        moment: when it ended, in seconds of a clock that all MODELs share.
        note: what is to be said of it, or empty.
    """

    given: str
    made: str
    start: float
    end: float
    end_stage: float
    record: BlendRecord
    prompt: str = ""
    moment: float = field(default_factory=time.monotonic)
    note: str = ""

    @property
    def leaves_noise(self) -> bool:
        """Whether it ended within denoising; what adds noise does not denoise (sigmas the other way round)."""
        return self.start > self.end > 0

    def continues(self, other: SampledPart) -> bool:
        """Whether it went on from the noisy latents that another made."""
        return other.leaves_noise and self.given == other.made != EMPTY

    def may_follow(self, other: SampledPart) -> bool:
        """Whether it went on where another had ended in the same prompt, with latents that were changed in between."""
        is_later_part = self.given != EMPTY and self.prompt == other.prompt
        return is_later_part and other.leaves_noise and self.start <= SAME_SIGMA * other.end


def run_behind(latents: torch.Tensor, parts: Sequence[SampledPart]) -> list[SampledPart]:
    """The parts, in order, of the run that made latents; of the last run where these are not known.

    From its last part a run goes back to the part that made what that one began with; where none did (a node changed the latents
    in between), to the one before it in the prompt, if it had stopped at that noise or above. So a sampling from pure noise begins a
    run, and one from finished latents too (video to video, a second pass). A part whose result came from ComfyUI's cache belongs to it.

    latents: (B, C, f, h, w)
    """
    parts, mark = sorted(parts, key=lambda part: part.moment), latent_mark(latents)
    index = next((index for index in reversed(range(len(parts))) if parts[index].made == mark), len(parts) - 1)
    run = []
    while index >= 0:
        part, before = parts[index], parts[:index]
        run.insert(0, part)
        source = next((one for one in reversed(range(index)) if part.continues(parts[one])), None)
        if source is None and before and part.may_follow(before[-1]):
            source = index - 1
        index = -1 if source is None else source
    return run


def record_of(run: Sequence[SampledPart]) -> BlendRecord:
    """What the parts of a run used, as one."""
    return BlendRecord(
        calls=[weights for part in run for weights in part.record.calls], stages=[stage for part in run for stage in part.record.stages]
    )


def latent_mark(latents: torch.Tensor) -> str:
    """Tells latents (B, C, f, h, w), or several in one, from others, whatever precision they are kept in; `EMPTY` where all are 0."""
    sha, is_empty = hashlib.sha256(), True
    for one in latents.unbind() if latents.is_nested else [latents]:
        rounded = one.detach().to(dtype=torch.float16, device="cpu").contiguous()
        is_empty &= not rounded.any()
        sha.update(rounded.numpy().tobytes())
    return EMPTY if is_empty else sha.hexdigest()
