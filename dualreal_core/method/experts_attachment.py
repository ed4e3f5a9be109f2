"""A pair at work in several DiTs that take turns: an attachment for each, set and read as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import torch
from torch import nn

from .attach import Attachment
from .blend import Blend, BlendRecord
from .coverage import Place
from .experts import experts_of
from .pair import AdapterPair, Role
from .stage_blender import Stage


class ExpertsAttachment:
    """See `Attachment` for its members: what is set here counts in all DiTs. Weights and coverage are those of each of the `parts`.

    Attributes:
        parts: an attachment for each DiT, with its own part of the pair.
    """

    def __init__(self, transformers: Sequence[nn.Module], pair: AdapterPair, blend: Blend | None = None) -> None:
        """Attaches the part of each expert, the noisiest first; a pair for one DiT acts in all of them.

        Raises:
            InputError: the pair was made for another architecture or width.
        """
        views = experts_of(pair) if pair.config.experts else [pair] * len(transformers)
        self.pair = pair
        self.parts = [Attachment(transformer, view, blend) for transformer, view in zip(transformers, views, strict=True)]
        self._former_weights: list[torch.Tensor | None] = [None] * len(self.parts)

    def attach(self) -> None:
        for part in self.parts:
            part.attach()

    def detach(self) -> None:
        for part in self.parts:
            part.detach()
        self._former_weights = [None] * len(self.parts)

    def start_over(self) -> None:
        for part in self.parts:
            part.start_over()
        self._former_weights = [part.weights for part in self.parts]

    def finish_call(self) -> None:
        """As `Attachment.finish_call`, for the DiT that was called: the one with new weights, or that ran past all of its blocks."""
        weights = [part.weights for part in self.parts]
        both = zip(self.parts, weights, self._former_weights, strict=True)
        called = [part for part, new, former in both if new is not former] or [part for part in self.parts if part.coverage.has_run]
        self._former_weights = weights
        for part in called:
            part.finish_call()

    def silent(self) -> list[Place]:
        """Places in any of the DiTs where the pair should have acted by now and has not."""
        return [place for part in self.parts for place in part.silent()]

    @property
    def blend(self) -> Blend:
        return self.parts[0].blend

    @blend.setter
    def blend(self, blend: Blend) -> None:
        for part in self.parts:
            part.blend = blend

    @property
    def follows_prompt(self) -> bool:
        return self.parts[0].follows_prompt

    @follows_prompt.setter
    def follows_prompt(self, follows: bool) -> None:
        for part in self.parts:
            part.follows_prompt = follows

    @property
    def audio_strength(self) -> float:
        return self.parts[0].audio_strength

    @audio_strength.setter
    def audio_strength(self, strength: float) -> None:
        for part in self.parts:
            part.audio_strength = strength

    @property
    def stage(self) -> Stage | None:
        return self.parts[0].stage

    @stage.setter
    def stage(self, stage: Stage | None) -> None:
        self.move_to(stage, None)

    @property
    def noise_level(self) -> Stage | None:
        return self.parts[0].noise_level

    def move_to(self, stage: Stage | None, noise_level: Stage | None) -> None:
        """Sets where in denoising the next calls are; see `Attachment`."""
        for part in self.parts:
            part.move_to(stage, noise_level)

    @property
    def strengths(self) -> Mapping[Role, float]:
        return self.parts[0].strengths

    @strengths.setter
    def strengths(self, strengths: Mapping[Role, float]) -> None:
        for part in self.parts:
            part.strengths = strengths

    @property
    def row_strengths(self) -> tuple[float, ...] | None:
        return self.parts[0].row_strengths

    @row_strengths.setter
    def row_strengths(self, strengths: Sequence[float] | None) -> None:
        for part in self.parts:
            part.row_strengths = strengths

    @property
    def condition(self) -> torch.Tensor | None:
        return self.parts[0].condition

    @condition.setter
    def condition(self, condition: torch.Tensor | None) -> None:
        for part in self.parts:
            part.condition = condition

    @property
    def record(self) -> BlendRecord | None:
        return self.parts[0].record

    @record.setter
    def record(self, record: BlendRecord | None) -> None:
        for part in self.parts:
            part.record = record

    def __enter__(self) -> ExpertsAttachment:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()
