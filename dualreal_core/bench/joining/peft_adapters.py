"""peft's own combinations of adapters (`add_weighted_adapter`), on the base's modules."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from ...method.from_lora import LinearUpdate, block_layers, one_sided_pair
from ...method.pair import ROLES, AdapterPair, split_key

COMBINED = "combined"


def combined(
    transformer: nn.Module, identity: AdapterPair, motion: AdapterPair, how: str, density: float | None = None, seed: int = 0
) -> AdapterPair:
    """A one-sided pair, to be used at weight 1, of what peft makes of both sides at weights 1 and 1.

    Args:
        how: peft's `combination_type`. 'cat' is the plain sum.
        density: share of the entries that are kept, where it prunes.
        seed: of what it draws.
    """
    model = peft_model(transformer, identity, motion)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model.add_weighted_adapter(list(ROLES), [1.0, 1.0], COMBINED, combination_type=how, density=density)
    updates = [
        LinearUpdate(path, layer.lora_A[COMBINED].weight.data, layer.lora_B[COMBINED].weight.data * layer.scaling[COMBINED])
        for path, layer in model.model.named_modules()
        if COMBINED in getattr(layer, "lora_A", {})
    ]
    return one_sided_pair(transformer, "identity", updates).requires_grad_(False)


def peft_model(transformer: nn.Module, identity: AdapterPair, motion: AdapterPair) -> nn.Module:
    """A copy of the DiT with both sides as peft's adapters of their roles, each at the strength of an even blend."""
    from peft import LoraConfig, LoraModel

    paths = {(place.block, place.layer): path for path, place in block_layers(transformer).items()}
    sides = {"identity": identity, "motion": motion}
    targets = {role: {paths[split_key(key)]: one for key, one in side.sides[role].items()} for role, side in sides.items()}

    def config(role: str) -> LoraConfig:
        rank = sides[role].config.rank(role)
        return LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets[role]))

    model = LoraModel(copy.deepcopy(transformer), config("identity"), "identity")
    model.peft_config["motion"] = config("motion")
    model.inject_adapter(model.model, "motion")
    modules = dict(model.model.named_modules())
    for role, side in sides.items():
        for path, adapter in targets[role].items():
            modules[path].lora_A[role].weight.data = adapter.down.weight.detach().float().clone()
            strength = adapter.scaling * side.config.scale / 2
            modules[path].lora_B[role].weight.data = adapter.up.weight.detach().float() * strength
    return model
