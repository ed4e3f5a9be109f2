"""LoRA sides as what they add to the weights of layers, and back: merges that work on whole weights, as papers write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from ...method.adapter import LoRA
from ...method.pair import AdapterPair, Role

Deltas = Mapping[str, torch.Tensor]
"""Update (out, in) of each layer's weight, by the key of its adapter."""


def deltas_of(pair: AdapterPair, role: Role) -> dict[str, torch.Tensor]:
    """What a LoRA side adds to each layer at an even blend."""
    even = pair.config.scale / 2
    return {key: delta_of(adapter) * even for key, adapter in pair.sides[role].items()}


def delta_of(adapter: LoRA) -> torch.Tensor:
    """(out, in) at weight 1"""
    return adapter.up.weight.detach().float() @ adapter.down.weight.detach().float() * adapter.scaling


def pair_of(deltas: Deltas, like: AdapterPair) -> AdapterPair:
    """A pair whose identity side adds `deltas` exactly, at weight 1, and which has no motion side; for a base as `like` is for.

    One factor of each is the identity matrix: no rank is lost, and guidance treats it as it treats two sides.
    """
    factors = {}
    for key, delta in deltas.items():
        out_width, in_width = delta.shape
        factors[key] = (torch.eye(in_width), delta) if in_width <= out_width else (delta, torch.eye(out_width))
    return low_rank_pair(factors, like)


def low_rank_pair(factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]], like: AdapterPair) -> AdapterPair:
    """As `pair_of`, from the factors (down (R, in), up (out, R)) of each update."""
    rank = max(down.shape[0] for down, _ in factors.values())
    config = replace(
        like.config, identity_kind="lora", motion_kind="none", identity_rank=rank, identity_alpha=float(rank), scale=2.0,
        has_controller=False, share_schedule=(),
    )  # fmt: skip
    shapes = {key: (down.shape[1], up.shape[0], down.shape[0]) for key, (down, up) in factors.items()}
    with torch.device("meta"):
        pair = AdapterPair(config, lora_shapes={"identity": shapes})
    parts = ((f"{key}.{name}.weight", one) for key, both in factors.items() for name, one in zip(("down", "up"), both, strict=True))
    state = {name: one.contiguous() for name, one in parts}
    pair.sides["identity"].load_state_dict(state, assign=True)
    return pair.requires_grad_(False)
