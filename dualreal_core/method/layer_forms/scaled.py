"""Updates that scale what a layer reads or writes, around an inner update: DoRA and IA3."""

from __future__ import annotations

import torch

from .form import Layer, LayerForm, State, taken
from .sums import FormSum

INNER = "inner."


class Scaled(LayerForm):
    """What both have: gain, less 1, and an inner update, which may have no parts."""

    reads_weight = True

    def __init__(self, gain: torch.Tensor, inner: FormSum | None = None, **weights: torch.Tensor) -> None:
        super().__init__(gain=gain, **weights)
        self.inner = FormSum({}) if inner is None else inner

    @classmethod
    def of_state(cls, state: State) -> LayerForm:
        own = {name: tensor for name, tensor in state.items() if not name.startswith(INNER)}
        return cls(inner=FormSum.of_state(taken(state, INNER)), **own)

    def _inner_delta(self, weight: torch.Tensor | None) -> torch.Tensor | float:
        inner = self.inner.delta(weight)
        return 0.0 if inner is None else inner


class ScaledOutput(Scaled):
    """`gain (W x) + (1 + gain) inner(x)`: gain (D,), less 1, and shift (D,), which is `-gain b` unless the bias is scaled as well.

    DoRA by rows, whose magnitude over the norm of the summed weight is 1 + gain; IA3.
    """

    name = "scaled_output"
    changes_bias = True

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        gain = self.gain.to(output.dtype)
        update = gain * output + self.shift.to(output.dtype)
        return update if self.inner.is_empty else update + (1 + gain) * self.inner(hidden, output, layer)

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        gain = self.gain.float()[:, None]
        return gain * weight.float() + (1 + gain) * self._inner_delta(weight)

    def bias_delta(self, bias: torch.Tensor | None) -> torch.Tensor | None:
        if bias is None:
            return None
        change = self.gain.float() * bias.float() + self.shift.float()
        return change if bool(change.any()) else None

    def of_outputs(self, rows: slice) -> ScaledOutput:
        return ScaledOutput(gain=self.gain[rows], shift=self.shift[rows], inner=self.inner.of_outputs(rows))


class ScaledInput(Scaled):
    """`W (gain x) + inner((1 + gain) x)`: gain (C,), less 1. DoRA by columns; IA3 of feed-forward layers."""

    name = "scaled_input"

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        scaled = hidden * (1 + self.gain.to(hidden.dtype))
        update = layer(scaled) - output  # the bias is in both
        return update if self.inner.is_empty else update + self.inner(scaled, output, layer)

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor:
        gain = self.gain.float()
        return gain * weight.float() + (1 + gain) * self._inner_delta(weight)

    def of_outputs(self, rows: slice) -> ScaledInput:
        return ScaledInput(gain=self.gain, inner=self.inner.of_outputs(rows))
