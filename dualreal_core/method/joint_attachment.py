"""A pair at work in several DiTs that take turns: an attachment for each, set and read as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import torch
from torch import nn

from .attach import Attachment
from .blend import Blend, BlendRecord, LearnedBlend
from .experts import experts_of
from .pair import AdapterPair, Role
from .stage_blender import Stage


class JointAttachment:
    """See `Attachment` for every member: what is set here counts in all DiTs.

    Attributes:
        parts: an attachment for each DiT, with its own part of the pair.
    """

    def __init__(self, transformers: Sequence[nn.Module], pair: AdapterPair, blend: Blend | None = None) -> None:
        """Attaches the part of each expert, the noisiest first; a pair for one DiT acts in all of them.

        Raises:
            InputError: the pair was made for another architecture or width.
        """
        views = experts_of(pair) if pair.config.experts else [pair] * len(transformers)
        if isinstance(blend, LearnedBlend):  # of all experts, of which each takes its own groups as it does by itself
            blend = None
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
        """As `Attachment.finish_call`, for the DiT that was called."""
        weights = [part.weights for part in self.parts]
        for part, new, former in zip(self.parts, weights, self._former_weights, strict=True):
            if new is not former:
                part.finish_call()
        self._former_weights = weights

    @property
    def stage(self) -> Stage | None:
        return self.parts[0].stage

    @stage.setter
    def stage(self, stage: Stage | None) -> None:
        for part in self.parts:
            part.stage = stage

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

    def __enter__(self) -> JointAttachment:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()
