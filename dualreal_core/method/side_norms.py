"""How much a side changes the layers of each block: the Frobenius norm of its updates of their weights."""

from __future__ import annotations

import torch

from .adapter import LoRA
from .layer_forms import FormAdapter
from .pair import AdapterPair, Role, split_key


def norms_by_block(pair: AdapterPair, role: Role) -> list[float]:
    """The norm of a LoRA side in each block, at weight 1; blocks of two experts one after the other. 0 where it has nothing.

    The weight of an even blend, half of the pair's scale, counts; updates that are none of linear layers' weights do not, nor those whose
    norm was not known when they were read.
    """
    squares = [0.0] * pair.config.total_blocks
    for key, adapter in pair.sides[role].items() if role in pair.sides else ():
        if isinstance(adapter, LoRA):
            squares[split_key(key)[0]] += _square(adapter.down.weight, adapter.up.weight) * adapter.scaling**2
        elif isinstance(adapter, FormAdapter):
            squares[split_key(key)[0]] += max(float(adapter.norm), 0.0) ** 2 * float(adapter.strength) ** 2
    even = pair.config.scale / 2
    return [even * square**0.5 for square in squares]


@torch.no_grad()
def _square(down: torch.Tensor, up: torch.Tensor) -> float:
    """|up @ down|^2 from the products of their ranks alone. down: (R, in), up: (out, R)"""
    down, up = down.float(), up.float()
    return max(float(((up.T @ up) * (down @ down.T)).sum()), 0.0)
