"""Updates that turn what a layer writes or reads: OFT and BOFT of LyCORIS and of peft, and GLoRA's change of the input."""

from __future__ import annotations

import torch
from torch.nn import functional

from .form import Layer, LayerForm, blockwise


class TurnedOutput(LayerForm):
    """`turn (y - b)` in blocks of outputs, as `v @ turn`: turn (N, B, B), rotation and rescaling, less the identity.

    shift: (D,), `-turn b`.
    """

    name = "turned_output"
    reads_weight = True

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        return blockwise(output, self.turn) + self.shift.to(output.dtype)

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        return blockwise(weight.float().t(), self.turn.float()).t()

    def of_outputs(self, rows: slice) -> LayerForm:
        size = self.turn.shape[-1]
        if rows.start % size or rows.stop % size:
            return super().of_outputs(rows)
        turn = self.turn[rows.start // size : rows.stop // size]
        return TurnedOutput(turn=turn, shift=self.shift[rows])


class ButterflyOutput(LayerForm):
    """`scale * butterfly(y - b) - (y - b)` (BOFT of LyCORIS): stages (M, N, B, B), of which stage i mixes outputs 2^i B apart.

    scale: (D,); shift: (D,), what this makes of -b.
    """

    name = "butterfly_output"
    reads_weight = True

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        return self._mixed(output) * self.scale.to(output.dtype) - output + self.shift.to(output.dtype)

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        columns = weight.float().t()
        return (self._mixed(columns) * self.scale.float() - columns).t()

    def _mixed(self, values: torch.Tensor) -> torch.Tensor:
        """values: (..., D) -> the same"""
        half = self.stages.shape[-1] // 2
        for index, stage in enumerate(self.stages):
            stride = 2**index * half
            values = values.unflatten(-1, (-1, 2, stride)).transpose(-2, -1).flatten(-3)
            values = blockwise(values, stage.transpose(-2, -1))
            values = values.unflatten(-1, (-1, stride, 2)).transpose(-2, -1).flatten(-3)
        return values


class TurnedInput(LayerForm):
    """`W (turn x)` in blocks of inputs: turn (N or 1, B, B) less the identity, as `v @ turn` (OFT of peft).

    gain: (D,), less 1, of the output without its bias, whose `-gain b` is shift (BOFT of peft); both zeros otherwise.
    """

    name = "turned_input"
    reads_weight = True

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        turned = layer(hidden + blockwise(hidden, self.turn))
        return turned * (1 + self.gain.to(output.dtype)) + self.shift.to(output.dtype) - output

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        # W x_turned = W (x + x @ T), so the weight becomes W + W T' by blocks
        weight = weight.float()
        turned = weight + blockwise(weight, self.turn.float().transpose(-2, -1))
        return turned * (1 + self.gain.float())[:, None] - weight

    def of_outputs(self, rows: slice) -> TurnedInput:
        return TurnedInput(turn=self.turn, gain=self.gain[rows], shift=self.shift[rows])


class ChangedInput(LayerForm):
    """`W (up (down x))`: down (R, C), up (C, R); GLoRA's A, beside which its B is a low-rank update."""

    name = "changed_input"
    reads_weight = True

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        change = functional.linear(functional.linear(hidden, self.down.to(hidden.dtype)), self.up.to(hidden.dtype))
        return layer(hidden + change) - output

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        return weight.float() @ self.up.float() @ self.down.float()

    def of_outputs(self, rows: slice) -> ChangedInput:
        return self
