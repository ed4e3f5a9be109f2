"""One LoRA for photos and clips whose layers weigh themselves by what they read (JointTuner's gate, Chen et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from ..bases import Base
from ..method.adapter import LoRA
from ..method.pair import AdapterPair, PairConfig, base_sizes, new_pair
from .recipes import FIXED_WEIGHTS

LORA_SCALE = 2.0
"""Sum of both weights at which a side acts at full strength."""


class GatedLoRA(LoRA):
    """A LoRA times `sigmoid` of a linear reading of its input, in the mean over all tokens: one number per layer and sample."""

    def __init__(self, in_dim: int, out_dim: int, rank: int) -> None:
        super().__init__(in_dim, out_dim, rank)
        self.gate = nn.Linear(in_dim, 1, bias=False)
        nn.init.normal_(self.gate.weight, std=1 / rank)

    def code(self, hidden: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        openness = torch.sigmoid(functional.linear(hidden, self.gate.weight.to(hidden.dtype))).mean(dim=-2, keepdim=True)
        return super().code(hidden) * openness


def new_gated_pair(base: Base, rank: int, seed: int) -> AdapterPair:
    """An untrained pair of one side, on all layers that ours acts on, at full strength."""
    settings = {"identity_kind": "lora", "motion_kind": "none", "identity_rank": rank, "identity_alpha": float(rank)}
    plain = new_pair(base.transformer, seed, scale=LORA_SCALE, **FIXED_WEIGHTS, **settings)
    shapes = {key: (one.down.in_features, one.up.out_features, rank) for key, one in plain.sides["identity"].items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_gates(plain.config, shapes)


def gated_pair(base: Base, state: Mapping[str, torch.Tensor]) -> AdapterPair:
    """The pair whose side has this state, as a run keeps it."""
    downs = {name.removesuffix(".down.weight"): tensor for name, tensor in state.items() if name.endswith(".down.weight")}
    shapes = {key: (down.shape[1], len(state[f"{key}.up.weight"]), down.shape[0]) for key, down in downs.items()}
    rank = next(iter(shapes.values()))[2]
    sizes = {"identity_rank": rank, "identity_alpha": float(rank), "num_groups": 1, "scale": LORA_SCALE}
    config = PairConfig(**base_sizes(base.transformer), identity_kind="lora", motion_kind="none", **sizes, **FIXED_WEIGHTS)
    pair = _with_gates(config, shapes)
    pair.sides["identity"].load_state_dict(state)
    return pair


def _with_gates(config: PairConfig, shapes: Mapping[str, tuple[int, int, int]]) -> AdapterPair:
    pair = AdapterPair(config, lora_shapes={"identity": {}})
    pair.sides["identity"].update({key: GatedLoRA(*shape) for key, shape in shapes.items()})
    return pair
