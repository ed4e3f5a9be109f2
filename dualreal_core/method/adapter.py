"""Adapters of one role: the paper's bottleneck (section 3.2) in two forms, and LoRA on the sites' linear layers.

Both are applied in the forward pass, never merged, so that their weight can differ by step, block and sample.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


def zero_init(layer: nn.Linear) -> None:
    """Makes an output layer start at zero, so that an untrained adapter adds nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Adapter(nn.Module):
    """What one side does at one place: `forward` gives its update of a module's output."""

    def add_to(
        self, output: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`output + weights * self(hidden)`, in the precision of the output.

        output: (B, ..., D) or (T, D); hidden: likewise with C; weights: (B or 1,); condition: (B or 1, E) -> as output.
        """
        update = self(hidden, condition)
        return output + (over_tokens(weights[:, None], hidden) * update).to(output.dtype)

    def of_outputs(self, rows: slice) -> Adapter:
        """This adapter for a layer that computes some of its outputs alone."""
        return OutputsOf(self, rows)


class OutputsOf(Adapter):
    """Some outputs of an adapter, whose weights stay that one's."""

    def __init__(self, whole: Adapter, rows: slice) -> None:
        super().__init__()
        self.whole, self.rows = whole, rows

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """hidden: (B, ..., C); condition: (B or 1, E) -> (B, ..., number of rows)"""
        return self.whole(hidden, condition)[..., self.rows]


class LowRank(Adapter):
    """An adapter `scaling * up(code)` of a narrow code of each token, plus `x` where it `keeps_skip`.

    A weight on the update may be put on its code: up to rounding that is the same, and a code is narrow.
    """

    down: nn.Linear
    up: nn.Linear
    scaling: float = 1.0
    keeps_skip: bool = False

    @property
    def up_weight(self) -> torch.Tensor:
        """(D, R)"""
        return self.up.weight

    def code(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """hidden: (B, ..., C) or (T, C); condition: (B or 1, E) -> (B, ..., R) or (T, R), in the dtype of hidden."""
        raise NotImplementedError

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """hidden: (B, ..., C); condition: (B or 1, E), ignored by an adapter that takes none -> (B, ..., D)."""
        code = self.code(hidden, condition)
        bias = None if self.up.bias is None else self.up.bias.to(code.dtype)
        update = functional.linear(code, self.up_weight.to(code.dtype), bias) * self.scaling
        return update + hidden if self.keeps_skip else update

    def add_to(
        self, output: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Adapter`. Autograd keeps the input and codes, and no update: as much as of a plain LoRA."""
        dtype, weights = output.dtype, over_tokens(weights[:, None], hidden)
        code = (self.code(hidden.to(dtype), condition) * (weights * self.scaling)).to(dtype)
        updated = torch.addmm(output.flatten(0, -2), code.flatten(0, -2), self.up_weight.to(dtype).t()).view(output.shape)
        if self.up.bias is not None:
            updated = updated + (weights * self.up.bias).to(dtype)
        return torch.addcmul(updated, hidden.to(dtype), weights.to(dtype)) if self.keeps_skip else updated


class Bottleneck(LowRank):
    """`up(gelu(down(x + cond(c))))`, plus `x` where `keeps_skip` (the paper's form).

    All tokens get the same condition, so it is folded: `down(x) + down.weight @ cond(c)`.

    Args:
        dim: width of the tokens.
        bottleneck_dim: hidden width.
        condition_dim: width of the reference embedding, None for an unconditioned adapter.
        keeps_skip: adds the unconditioned `x`; the untrained adapter is then not neutral.
    """

    def __init__(self, dim: int, bottleneck_dim: int, condition_dim: int | None = None, keeps_skip: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(dim, bottleneck_dim)
        self.up = nn.Linear(bottleneck_dim, dim)
        self.condition_proj = None if condition_dim is None else nn.Linear(condition_dim, dim)
        self.keeps_skip = keeps_skip
        zero_init(self.up)

    def code(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        code = functional.linear(hidden, self.down.weight.to(hidden.dtype), self.down.bias.to(hidden.dtype))
        shift = self.shift(condition)
        return functional.gelu(code if shift is None else code + over_tokens(shift.to(code.dtype), hidden))

    def shift(self, condition: torch.Tensor | None) -> torch.Tensor | None:
        """What a condition (B or 1, E) adds to the hidden units of all tokens, (B or 1, R); None without or for one that takes none."""
        if self.condition_proj is None or condition is None:
            return None
        return functional.linear(self.condition_proj(condition.to(self.down.weight.dtype)), self.down.weight)


class LoRA(LowRank):
    """The update `scaling * up(down(x))` of one linear layer; `scaling` is alpha / rank."""

    def __init__(self, in_dim: int, out_dim: int, rank: int, scaling: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(in_dim, rank, bias=False)
        self.up = nn.Linear(rank, out_dim, bias=False)
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        zero_init(self.up)

    def code(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return functional.linear(hidden, self.down.weight.to(hidden.dtype))

    def of_outputs(self, rows: slice) -> Adapter:
        """See `Adapter`; it stays low-rank."""
        return LoRAOutputs(self, rows)


class LoRAOutputs(LowRank):
    """Some outputs of a LoRA, whose weights stay that one's: of a fused layer, in a model that computes its parts one by one."""

    def __init__(self, whole: LoRA, rows: slice) -> None:
        super().__init__()
        self.whole, self.rows, self.scaling = whole, rows, whole.scaling

    @property
    def down(self) -> nn.Linear:
        return self.whole.down

    @property
    def up(self) -> nn.Linear:
        return self.whole.up

    @property
    def up_weight(self) -> torch.Tensor:
        return self.whole.up.weight[self.rows]

    def code(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return self.whole.code(hidden)


def over_tokens(rows: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Values (B or 1, N) of rows, shaped to be spread over the tokens of hidden, (B, ..., C) or (T, C) of a single row."""
    return rows.reshape(len(rows), *[1] * (hidden.ndim - 2), rows.shape[1])
