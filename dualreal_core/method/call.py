"""What the parts of an attached pair tell each other about the current call of the DiT."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .pair import ROLES, Role

Widths = tuple[int, int]
"""Of the codes of both sides at a place, identity first; 0 for one that does not act there."""


@dataclass(eq=False)
class GroupWeights:
    """The weights of one group of blocks, as the places with codes of the same widths need them.

    Places read them from here, as objects of their own, so that code compiled for one block serves all of them.

    Attributes:
        group: number of the group.
        widths: of the codes.
        weights: (B or 1, 2).
        factors: (B or 1, R), the weight of each value of both codes side by side; None where autograd is at work.
    """

    group: int
    widths: Widths
    weights: torch.Tensor | None = None
    factors: torch.Tensor | None = None


@dataclass(eq=False)
class Call:
    """The current call. Code that may be compiled assigns its attributes and changes none in place.

    Attributes:
        strengths: factors on the weights of both sides.
        condition: reference embedding (B or 1, E), or None.
        rows: runs of rows of the batch in which the pair acts; None: all.
        given: (B or 1, N + 2) on the device: what the blend had scheduled, and the strengths of both sides by row.
        embedding, embedded: the time embedding, and what it was made of, from the DiT's call of it until its first block.
        uses_autograd: whether the call is one to go back through.
        weights: (B, G, 2).
        is_compiled: whether a call was one of compiled code.
        groups: those of them that places read.
    """

    strengths: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 1.0))
    condition: torch.Tensor | None = None
    rows: tuple[slice, ...] | None = None
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
        factors: dict[Widths, torch.Tensor] = {}
        for group in self.groups.values():
            group.weights, group.factors = weights[:, group.group], None
            if any(group.widths) and not uses_autograd:
                if group.widths not in factors:
                    sides = zip(weights.unbind(-1), group.widths, strict=True)
                    factors[group.widths] = torch.cat([side[..., None].expand(-1, -1, width) for side, width in sides if width], dim=-1)
                group.factors = factors[group.widths][:, group.group]
