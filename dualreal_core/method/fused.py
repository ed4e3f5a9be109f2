"""Both sides of a site in one pass, for calls without autograd: one product down to the codes, one up, instead of two each.

The codes of each side are scaled by its weight; equal to the sum of both adapters up to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from .adapter import Adapter, Bottleneck, LoRA, LoRAOutputs, LowRank, over_tokens
from .pair import ROLES, Role


@dataclass(frozen=True, eq=False)
class FusedAdapters:
    """The adapters of some sides at one place, side by side, in the dtype in which they compute.

    Attributes:
        down: (R, C).
        bias: of the codes, with what a condition adds to them: (R,), (B, R) where conditions differ by row, or None without gelu.
        up: (R, D).
        up_biases: (2, D), zeros for a side without; or None.
        has_skip: whether each side adds the tokens themselves.
    """

    down: torch.Tensor
    bias: torch.Tensor | None
    up: torch.Tensor
    up_biases: torch.Tensor | None
    has_skip: tuple[bool, bool]

    def add_to(
        self, output: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor, factors: torch.Tensor, in_place: bool = False
    ) -> torch.Tensor:
        """Adds the weighted updates to an output; in place only to one that is contiguous.

        output: (B, ..., D) or (T, D); hidden: likewise with C; weights: (B or 1, 2); factors: (B or 1, 1, R) or (1, R) -> as output.
        """
        bias = None if self.bias is None or self.bias.ndim == 2 else self.bias
        code = functional.linear(hidden, self.down, bias)
        if self.bias is not None:
            code = functional.gelu(code if bias is not None else code + over_tokens(self.bias, hidden))
        code.mul_(factors if factors.ndim == code.ndim else over_tokens(factors.flatten(0, -2), hidden))
        if self.up_biases is not None:
            biases = over_tokens(weights.to(output.dtype) @ self.up_biases, hidden)
            output, in_place = output.add_(biases) if in_place else output + biases, True
        is_flat = output.ndim == 2
        flat, codes = (output, code) if is_flat else (output.flatten(0, -2), code.flatten(0, -2))
        updated = flat.addmm_(codes, self.up) if in_place else torch.addmm(flat, codes, self.up)
        updated = updated if is_flat else updated.view(output.shape)
        for side, has_skip in enumerate(self.has_skip):
            if has_skip:
                updated.addcmul_(hidden, over_tokens(weights[:, side : side + 1], hidden).to(hidden.dtype))
        return updated

    def of_rows(self, rows: int | slice) -> FusedAdapters:
        """For some rows of the batch alone."""
        if self.bias is None or self.bias.ndim == 1:
            return self
        return replace(self, bias=self.bias[rows])


def can_fuse(adapters: Collection[Adapter]) -> bool:
    """Whether all adapters are of one form whose codes are known here."""
    return {type(adapter) for adapter in adapters} in ({LoRA}, {LoRAOutputs}, {Bottleneck})


def fuse(adapters: Mapping[Role, LowRank], dtype: torch.dtype, condition: torch.Tensor | None) -> FusedAdapters:
    """Joins the adapters of one or both sides; condition: (B or 1, E), or None."""
    sides = [adapters[role] for role in ROLES if role in adapters]
    bias = None
    if sides[0].down.bias is not None:
        shifts = [side.shift(condition) if isinstance(side, Bottleneck) else None for side in sides]
        num_rows = max([1, *(len(shift) for shift in shifts if shift is not None)])
        biases = [side.down.bias if shift is None else side.down.bias + shift for side, shift in zip(sides, shifts, strict=True)]
        bias = torch.cat([one.expand(num_rows, -1) for one in biases], dim=1).to(dtype)
        bias = bias[0] if num_rows == 1 else bias
    up_biases = None
    if sides[0].up.bias is not None:
        both = [adapters[role].up.bias if role in adapters else torch.zeros_like(sides[0].up.bias) for role in ROLES]
        up_biases = torch.stack(both).to(dtype)
    return FusedAdapters(
        torch.cat([side.down.weight for side in sides]).to(dtype),
        bias,
        torch.cat([side.up_weight * side.scaling for side in sides], dim=1).to(dtype).t(),
        up_biases,
        tuple(role in adapters and adapters[role].keeps_skip for role in ROLES),
    )
