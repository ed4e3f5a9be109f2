"""Linear layers of a MODEL that is trained through: they keep nothing, and ask ComfyUI for their weights again on the way back.

ComfyUI makes a layer's weights for the length of its call where they are stored in a lower precision or elsewhere. Autograd would
keep what was made, in full precision, or a buffer that the next layer writes to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.ops
import torch
from comfy.quant_ops import QuantizedTensor
from torch import nn


@contextmanager
def keeping_no_weights(transformer: nn.Module) -> Iterator[None]:
    """Inside, the frozen linear layers of a DiT keep nothing for the backward pass.

    Left alone are layers of quantized weights, which ComfyUI trains through in a way of its own, and those whose forward somebody
    else has replaced.
    """
    layers = [module for module in transformer.modules() if _is_frozen_linear(module)]
    for layer in layers:
        layer.forward = _Frozen(layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _is_frozen_linear(module: nn.Module) -> bool:
    is_linear = isinstance(module, nn.Linear) and isinstance(module, comfy.ops.CastWeightBiasOp) and "forward" not in vars(module)
    # a layer that ComfyUI has yet to load has no weight
    return is_linear and not getattr(module.weight, "requires_grad", True) and not isinstance(module.weight, QuantizedTensor)


class _Frozen:
    """The forward of a frozen layer."""

    def __init__(self, layer: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.layer, self.own_forward = layer, forward

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden: (..., C) -> (..., D)"""
        if not (torch.is_grad_enabled() and hidden.requires_grad):
            return self.own_forward(hidden)
        return _FrozenLinear.apply(hidden, self)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, hidden: torch.Tensor, frozen: _Frozen) -> torch.Tensor:
        context.layer = frozen.layer
        return frozen.own_forward(hidden)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        weight, bias, stream = comfy.ops.cast_bias_weight(context.layer, gradient, offloadable=True)
        try:
            return gradient @ weight, None
        finally:
            comfy.ops.uncast_bias_weight(context.layer, weight, bias, stream)
