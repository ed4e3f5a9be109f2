"""Updates that are products of the tokens alone: low-rank, Kronecker (LoKr), Hadamard (LoHa), and whole differences."""

from __future__ import annotations

import torch
from torch.nn import functional

from .form import Layer, LayerForm


class LowRank(LayerForm):
    """`up (down x)`: down (R, C), up (D, R)."""

    name = "low_rank"

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        code = functional.linear(hidden, self.down.to(hidden.dtype))
        return functional.linear(code, self.up.to(hidden.dtype))

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        return self.up.float() @ self.down.float()

    def squared_norm(self, weight: torch.Tensor | None) -> float:
        return low_rank_square(self.down, self.up)

    def of_outputs(self, rows: slice) -> LowRank:
        return LowRank(down=self.down, up=self.up[rows])


class Kronecker(LayerForm):
    """`kron(left, right) x` without that matrix (LoKr): left (D1, C1), right (D2, C2), of which one may be a product of two.

    The weights are `left` or `left_up` (D1, R) and `left_down` (R, C1), likewise for right.
    """

    name = "kronecker"

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        left, right = self._factor("left", hidden.dtype), self._factor("right", hidden.dtype)
        apart = hidden.unflatten(-1, (left.shape[1], right.shape[1]))  # (..., C1, C2)
        inner = functional.linear(apart, right)  # (..., C1, D2)
        return torch.einsum("dc,...ce->...de", left, inner).flatten(-2)

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        return torch.kron(self._factor("left", torch.float32).contiguous(), self._factor("right", torch.float32).contiguous())

    def squared_norm(self, weight: torch.Tensor | None) -> float:
        return float(self._factor("left", torch.float64).square().sum() * self._factor("right", torch.float64).square().sum())

    def _factor(self, side: str, dtype: torch.dtype) -> torch.Tensor:
        whole = getattr(self, side, None)
        return whole.to(dtype) if whole is not None else getattr(self, f"{side}_up").to(dtype) @ getattr(self, f"{side}_down").to(dtype)

    def of_outputs(self, rows: slice) -> LayerForm:
        left, right = self._factor("left", self._dtype()), self._factor("right", self._dtype())
        step = right.shape[0]
        if rows.start % step or rows.stop % step:
            return super().of_outputs(rows)
        return Kronecker(left=left[rows.start // step : rows.stop // step], right=right)

    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Hadamard(LayerForm):
    """`((up1 down1) * (up2 down2)) x` (LoHa), for ranks whose product is too large for the exact low-rank form."""

    name = "hadamard"

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        return functional.linear(hidden, self._product(hidden.dtype))

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        return self._product(torch.float32)

    def of_outputs(self, rows: slice) -> Hadamard:
        return Hadamard(up1=self.up1[rows], down1=self.down1, up2=self.up2[rows], down2=self.down2)

    def _product(self, dtype: torch.dtype) -> torch.Tensor:
        return (self.up1.to(dtype) @ self.down1.to(dtype)) * (self.up2.to(dtype) @ self.down2.to(dtype))


class Difference(LayerForm):
    """`value x`, a whole difference: value as the weight, (D, C)."""

    name = "difference"

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        return functional.linear(hidden, self.value.to(hidden.dtype))

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        return self.value.float()

    def of_outputs(self, rows: slice) -> Difference:
        return Difference(value=self.value[rows])


class Offset(LayerForm):
    """A difference of the bias: value (D,)."""

    name = "offset"
    changes_weight = False
    changes_bias = True

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        return self.value.to(output.dtype).expand_as(output)

    def delta(self, weight: torch.Tensor | None) -> None:
        return None

    def bias_delta(self, bias: torch.Tensor | None) -> torch.Tensor:
        return self.value.float()

    def squared_norm(self, weight: torch.Tensor | None) -> float:
        return float(self.value.double().square().sum())

    def of_outputs(self, rows: slice) -> Offset:
        return Offset(value=self.value[rows])


def low_rank_square(down: torch.Tensor, up: torch.Tensor) -> float:
    """Square of the Frobenius norm of `up down`, from the products of their ranks alone."""
    down, up = down.float(), up.float()
    return max(0.0, float(((down @ down.t()).double() * (up.t() @ up).double()).sum()))


def khatri_rao(up1: torch.Tensor, down1: torch.Tensor, up2: torch.Tensor, down2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(down, up) of rank R1 R2 whose product is `(up1 down1) * (up2 down2)`: every product of two rows, and of two columns."""
    down = (down1[:, None] * down2[None]).flatten(0, 1)
    up = (up1[:, :, None] * up2[:, None, :]).flatten(1)
    return down, up
