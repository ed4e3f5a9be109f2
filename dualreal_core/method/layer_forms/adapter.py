"""One side's update of a linear layer in any other form than the plain low-rank one, as an adapter."""

from __future__ import annotations

import torch
from torch import nn

from ..adapter import Adapter, over_tokens
from .form import State, taken
from .sums import FormSum

TOTAL = "total."


class FormAdapter(Adapter):
    """`strength * total(x, y, layer)`, of which only the weight of the call is not its own.

    Attributes:
        strength: (1,), 1 unless pairs of different scales were joined.
        norm: (1,), of the change of the weight at strength 1, after Frobenius; negative where it is not known.
        total: the forms.
    """

    def __init__(self, total: FormSum, strength: torch.Tensor | None = None, norm: torch.Tensor | None = None) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.ones(1) if strength is None else strength, requires_grad=False)
        self.norm = nn.Parameter(-torch.ones(1) if norm is None else norm, requires_grad=False)
        self.total = total

    @classmethod
    def of_state(cls, state: State) -> FormAdapter:
        """The adapter with these weights, by their names in its state.

        Raises:
            KeyError: there is none of its strength or norm.
            ValueError: a form is not known.
        """
        return cls(FormSum.of_state(taken(state, TOTAL)), state["strength"], state["norm"])

    def add_update(
        self, output: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor, base: torch.Tensor, layer: nn.Module
    ) -> torch.Tensor:
        """`output + weights * self(hidden)`, in the precision of the output.

        output: (B, ..., D) or (T, D); base: likewise, what the layer itself made; hidden: likewise with C; weights: (B or 1,)
        """

        def itself(tokens: torch.Tensor) -> torch.Tensor:  # its weights may be of the tokens' dtype where autocast makes the output's
            return layer.forward(tokens.to(hidden.dtype)).to(output.dtype)

        update = self.total(hidden.to(output.dtype), base, itself) * self.strength.to(output.dtype)
        return torch.addcmul(output, over_tokens(weights[:, None], hidden).to(output.dtype), update)

    def of_outputs(self, rows: slice) -> FormAdapter:
        """See `Adapter`."""
        return FormAdapter(self.total.of_outputs(rows), self.strength)
