"""The weights of a DiT as numbers, in whatever form they are kept, for updates that depend on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

WeightOf = Callable[[str], "torch.Tensor | None"]
"""A parameter's values by its name in the DiT, as the plain model has them; None where there is none, or it cannot be read."""


def weights_of(transformer: nn.Module) -> WeightOf:
    """Reads floating parameters, and those that know how to become so."""

    def weight_of(name: str) -> torch.Tensor | None:
        path, _, own = name.rpartition(".")
        try:
            value = getattr(transformer.get_submodule(path), own)
        except AttributeError:
            return None
        return None if value is None else plain(value)

    return weight_of


def plain(value: torch.Tensor) -> torch.Tensor | None:
    """A weight on the CPU in float32; None for a form that is not known, or on no device."""
    if value.device.type == "meta":
        return None
    dequantize = getattr(value, "dequantize", None)
    is_quantized = value.is_quantized or type(value) not in (torch.Tensor, nn.Parameter)
    if is_quantized and dequantize is not None:
        try:
            value = dequantize()
        except (RuntimeError, NotImplementedError, TypeError):
            return None
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    return value.detach().to("cpu", torch.float32)
