"""What the parts of an attached pair tell each other about the current call of the DiT."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .pair import ROLES, Role

Widths = tuple[int, int]
"""Of the codes of both sides at a place, identity first; 0 for one that does not act there."""

Rows = int | slice | None
"""A row of the batch, a run of rows, or all; of a packed sample a run of its tokens."""

Part = tuple[Rows, torch.Tensor, torch.Tensor]
"""Rows; their weights (b, 2); and factors (b, 1, R), or (1, R) of a single row, with the weight of each value of both codes."""

Run = tuple[int, int, float]
"""Begin and end of a run of tokens, and the factor on the weights there."""


@dataclass(eq=False)
class GroupWeights:
    """The weights of one group of blocks, as the places with codes of the same widths need them.

    Places read them from here, as objects of their own, so that code compiled for one block serves all of them.

    Attributes:
        group: number of the group.
        widths: of the codes.
        is_audio: whether the places write sound.
        weights: (B or 1, 2), or of each token of a packed sample (T, 2).
        parts: of the rows in which the pair acts; none where autograd is at work.
    """

    group: int
    widths: Widths
    is_audio: bool
    weights: torch.Tensor | None = None
    parts: tuple[Part, ...] = ()


@dataclass(eq=False)
class Call:
    """The current call. Code that may be compiled assigns its attributes and changes none in place.

    Attributes:
        strengths: factors on the weights of both sides.
        audio_strength: factor on the weights of what writes sound.
        condition: reference embedding (B or 1, E), or None.
        rows: of the batch in which the pair acts; None: all.
        given: (B or 1, N + 2) on the device: what the blend had scheduled, and the strengths of both sides by row.
        text: tokens (B or 1, T, X) that the DiT was called with last, kept for what runs blocks again; None: the call had none.
        token_runs: of a packed sample, all of its tokens in order, where their factors differ; None: all alike.
        embedding, embedded: the time embedding, and what it was made of, from the DiT's call of it until its first block.
        first_tokens: (B, C, f, h, w), likewise, where they are not those of the blocks.
        uses_autograd: whether the call is one to go back through.
        weights: (B, G, 2).
        named: (B or 1, 2) how far the prompts of the call name each side, by the prompt gate; None where it has no say.
        is_compiled: whether a call was one of compiled code.
        groups: those of them that places read.
    """

    strengths: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 1.0))
    audio_strength: float = 0.0
    condition: torch.Tensor | None = None
    rows: tuple[int | slice, ...] | None = None
    given: torch.Tensor | None = None
    embedding: torch.Tensor | None = None
    embedded: torch.Tensor | None = None
    first_tokens: torch.Tensor | None = None
    text: torch.Tensor | None = None
    token_runs: tuple[Run, ...] | None = None
    uses_autograd: bool = False
    weights: torch.Tensor | None = None
    named: torch.Tensor | None = None
    is_compiled: bool = False
    groups: dict[tuple[int, Widths, bool], GroupWeights] = field(default_factory=dict)

    def group(self, number: int, widths: Widths, is_audio: bool) -> GroupWeights:
        """Weights of a group for places with codes of these widths."""
        return self.groups.setdefault((number, widths, is_audio), GroupWeights(number, widths, is_audio))

    def forget(self) -> None:
        """Drops what a call that broke off had left for its first block."""
        self.embedding = self.embedded = self.first_tokens = None

    def use(self, weights: torch.Tensor, uses_autograd: bool) -> None:
        """Makes weights (B, G, 2) those of the call."""
        self.weights, self.uses_autograd = weights, uses_autograd
        parts: dict[tuple[Widths, bool], list[Part]] = {}
        for group in self.groups.values():
            own = weights * self.audio_strength if group.is_audio else weights
            group.parts = ()
            if uses_autograd or not any(group.widths):
                group.weights = self._by_token(own[:, group.group])
                continue
            group.weights = own[:, group.group]
            form = group.widths, group.is_audio
            if form not in parts:
                parts[form] = [(rows, some, _factors(some, rows, group.widths)) for rows, some in self._acting(own)]
            group.parts = tuple((rows, some[:, group.group], factors[..., group.group, :]) for rows, some, factors in parts[form])

    def _acting(self, weights: torch.Tensor) -> list[tuple[Rows, torch.Tensor]]:
        """Rows, or runs of tokens, in which the pair acts, with their weights (b, G, 2)."""
        if self.token_runs is not None:
            return [(slice(begin, end), weights * factor) for begin, end, factor in self.token_runs if factor]
        if self.rows is None:
            return [(None, weights)]
        return [(rows, weights[rows : rows + 1] if isinstance(rows, int) else weights[rows]) for rows in self.rows]

    def _by_token(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (B, 2) as they are, or of each token of a packed sample, whose factors differ: (T, 2)."""
        if self.token_runs is None:
            return weights
        return torch.cat([(weights * factor).expand(end - begin, -1) for begin, end, factor in self.token_runs])


def _factors(weights: torch.Tensor, rows: Rows, widths: Widths) -> torch.Tensor:
    """Weights (b, G, 2) as often as the codes have values: (b, 1, G, R), or (1, G, R) of a single row."""
    sides = [side[..., None].expand(-1, -1, width) for side, width in zip(weights.unbind(-1), widths, strict=True) if width]
    factors = torch.cat(sides, dim=-1)
    return factors if isinstance(rows, int) else factors[:, None]
