"""What the parts of an attached pair tell each other about the current call of the DiT."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .pair import ROLES, Role

Widths = tuple[int, int]
"""Of the codes of both sides at a place, identity first; 0 for one that does not act there."""



Rows = int | slice | None
"""A row of the batch, a run of rows, or all."""

Part = tuple[Rows, torch.Tensor, torch.Tensor]
"""Rows; their weights (b, 2); and factors (b, 1, R), or (1, R) of a single row, with the weight of each value of both codes."""


@dataclass(eq=False)
class GroupWeights:
    """The weights of one group of blocks, as the places with codes of the same widths need them.

    Places read them from here, as objects of their own, so that code compiled for one block serves all of them.

    Attributes:
        group: number of the group.
        widths: of the codes.
        weights: (B or 1, 2).
        parts: of the rows in which the pair acts; none where autograd is at work.
    """

    group: int
    widths: Widths
    weights: torch.Tensor | None = None
    parts: tuple[Part, ...] = ()


@dataclass(eq=False)
class Call:
    """The current call. Code that may be compiled assigns its attributes and changes none in place.

    Attributes:
        strengths: factors on the weights of both sides.
        condition: reference embedding (B or 1, E), or None.
        rows: of the batch in which the pair acts; None: all.
        given: (B or 1, N + 2) on the device: what the blend had scheduled, and the strengths of both sides by row.
        embedding, embedded: the time embedding, and what it was made of, from the DiT's call of it until its first block.
        uses_autograd: whether the call is one to go back through.
        weights: (B, G, 2).
        is_compiled: whether a call was one of compiled code.
        groups: those of them that places read.
    """

    strengths: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 1.0))
    condition: torch.Tensor | None = None
    rows: tuple[int | slice, ...] | None = None
    given: torch.Tensor | None = None
    embedding: torch.Tensor | None = None
    embedded: torch.Tensor | None = None
    uses_autograd: bool = False
    weights: torch.Tensor | None = None
    is_compiled: bool = False
    groups: dict[tuple[int, Widths], GroupWeights] = field(default_factory=dict)

    def group(self, number: int, widths: Widths) -> GroupWeights:
        """Weights of a group for places with codes of these widths."""
        return self.groups.setdefault((number, widths), GroupWeights(number, widths))

    def use(self, weights: torch.Tensor, uses_autograd: bool) -> None:
        """Makes weights (B, G, 2) those of the call."""
        self.weights, self.uses_autograd = weights, uses_autograd
        all_rows: tuple[Rows, ...] = (None,) if self.rows is None else self.rows
        parts: dict[Widths, list[Part]] = {}
        for group in self.groups.values():
            group.weights, group.parts = weights[:, group.group], ()
            if any(group.widths) and not uses_autograd:
                if group.widths not in parts:
                    parts[group.widths] = [(rows, *_factors(weights, rows, group.widths)) for rows in all_rows]
                group.parts = tuple((rows, own[:, group.group], factors[..., group.group, :]) for rows, own, factors in parts[group.widths])


def _factors(weights: torch.Tensor, rows: Rows, widths: Widths) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (b, G, 2) of these rows; and each as often as the codes have values: (b, 1, G, R), or (1, G, R) of a single row."""
    own = weights if rows is None else weights[rows : rows + 1] if isinstance(rows, int) else weights[rows]
    sides = [side[..., None].expand(-1, -1, width) for side, width in zip(own.unbind(-1), widths, strict=True) if width]
    factors = torch.cat(sides, dim=-1)
    return own, factors if isinstance(rows, int) else factors[:, None]
