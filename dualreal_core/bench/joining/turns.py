"""Pairs that take turns in one DiT while it denoises: for weights that differ by layer and noise level at once."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from torch import nn

from ...method.attach import Attachment
from ...method.blend import Blend
from ...method.pair import AdapterPair
from ...method.stage_blender import Stage

PairAt = Callable[[float], AdapterPair]
"""The pair at a noise level; the same object where the same one acts."""


class Turns:
    """At each call the pair of its noise level is attached, and the one before it taken out. `sample` uses it as an `Attachment`.

    Args:
        blend: that weighs all of them.
    """

    def __init__(self, transformer: nn.Module, pair_at: PairAt, blend: Blend | None = None) -> None:
        self._transformer, self._pair_at, self._blend = transformer, pair_at, blend
        self._attachments: dict[int, Attachment] = {}
        self._now = self._attached(1.0)

    @property
    def pair(self) -> AdapterPair:
        """The one that acts."""
        return self._now.pair

    def move_to(self, stage: Stage | None, noise_level: float | None) -> None:
        """See `Attachment`; exchanges the pair where another one's turn has come."""
        after = self._now if noise_level is None else self._attached(noise_level)
        after.row_strengths, after.condition = self._now.row_strengths, self._now.condition
        self._now = after
        after.move_to(stage, noise_level)

    def start_over(self) -> None:
        """See `Attachment`."""
        for attachment in self._attachments.values():
            attachment.start_over()

    def finish_call(self) -> None:
        """See `Attachment`."""
        self._now.finish_call()

    def detach(self) -> None:
        """Takes the pair that acts out of the DiT."""
        self._now.detach()

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("condition", "row_strengths", "stage"):
            setattr(self._now, name, value)
        else:
            super().__setattr__(name, value)

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    def _attached(self, noise_level: float) -> Attachment:
        pair = self._pair_at(noise_level)
        if self._attachments:
            self._now.detach()
        if id(pair) not in self._attachments:
            self._attachments[id(pair)] = Attachment(self._transformer, pair, self._blend)
        attachment = self._attachments[id(pair)]
        attachment.attach()
        return attachment
