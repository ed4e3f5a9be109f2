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


class Bottleneck(nn.Module):
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

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """hidden: (B, T, C); condition: (B or 1, E), ignored by an unconditioned adapter -> (B, T, C)."""
        code = self.down(hidden)
        if self.condition_proj is not None and condition is not None:
            code = code + functional.linear(self.condition_proj(condition), self.down.weight)[:, None]
        update = self.up(functional.gelu(code))
        return update + hidden if self.keeps_skip else update


class LoRA(nn.Module):
    """The update `scaling * up(down(x))` of one linear layer; `scaling` is alpha / rank."""

    def __init__(self, in_dim: int, out_dim: int, rank: int, scaling: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(in_dim, rank, bias=False)
        self.up = nn.Linear(rank, out_dim, bias=False)
        self.scaling = scaling
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        zero_init(self.up)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """hidden: (..., in_dim) -> (..., out_dim); LoRA takes no condition."""
        return self.up(self.down(hidden)) * self.scaling
