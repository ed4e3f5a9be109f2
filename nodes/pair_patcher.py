"""A pair as one of the models that ComfyUI loads, moves and frees."""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher

from ..dualreal_core.method.pair import AdapterPair
from ..dualreal_core.method.placement import placed


def patcher_of(pair: AdapterPair, load_device: torch.device, offload_device: torch.device) -> ModelPatcher:
    """The patcher that ComfyUI loads a pair by, and by which it makes others for more devices."""
    own_names = frozenset(vars(pair))

    def for_another_device(disable_dynamic: bool = False) -> ModelPatcher:
        fresh = placed(pair, offload_device)
        for name in set(vars(fresh)) - own_names:  # what ComfyUI noted on the one that it has loaded
            delattr(fresh, name)
        for module in fresh.modules():
            for name in [name for name in vars(module) if name.startswith("comfy_")]:
                delattr(module, name)
        return patcher_of(fresh, load_device, offload_device)

    patcher = ModelPatcher(pair, load_device, offload_device)
    patcher.cached_patcher_init = (for_another_device, ())
    return patcher
