"""A pair on another device or in another precision, as a copy: what others hold of it stays as it is."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn

from .pair import AdapterPair


def is_placed(pair: AdapterPair, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether both sides lie there in this precision, StageBlender and gate lie there, and, where gradients are on, autograd takes all."""
    weights = list(pair.sides.parameters())
    tensors = [*weights, *pair.controller_parameters(), *pair.gate_parameters()]
    return (
        all(weight.dtype == dtype for weight in weights)
        and all(tensor.device == device for tensor in tensors)
        and not (torch.is_grad_enabled() and any(tensor.is_inference() for tensor in tensors))
    )


def placed(pair: AdapterPair, device: torch.device, dtype: torch.dtype | None = None) -> AdapterPair:
    """A copy there, without gradients, usable with autograd though it is made in inference mode.

    Args:
        dtype: of both sides; StageBlender and gate keep their own. None: as they are.
    """
    sides = {id(weight) for weight in pair.sides.parameters()}
    with torch.inference_mode(False), torch.no_grad():
        moved: dict[int, object] = {}
        for tensor in chain(pair.parameters(), pair.buffers()):
            own = tensor.detach().to(device, dtype if id(tensor) in sides else tensor.dtype, copy=True)
            moved[id(tensor)] = nn.Parameter(own, requires_grad=False) if isinstance(tensor, nn.Parameter) else own
        return copy.deepcopy(pair, moved)


def sharing_weights(pair: AdapterPair) -> AdapterPair:
    """A pair with the same numbers in memory, without gradients: either may be moved or cast, and the other stays as it is."""
    with torch.inference_mode(False), torch.no_grad():
        shared = {id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in pair.parameters()}
        return copy.deepcopy(pair, {**shared, **{id(buffer): buffer.detach() for buffer in pair.buffers()}})
