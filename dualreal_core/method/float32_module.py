"""A small network that computes in float32 and stays so when the pair around it is cast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Float32Module(nn.Module):
    """A module that casts to lower precisions leave in float32; moves to another device count."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Float32Module:
        def move(tensor: torch.Tensor) -> torch.Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype.itemsize < torch.float32.itemsize else moved

        return super()._apply(move, recurse)
