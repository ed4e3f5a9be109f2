"""What trainers wrap a LoRA in where they save it by torch: under a name, in a tree, with its settings beside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch

CONTAINERS = (
    "state_dict", "lora_state_dict", "lora", "generator_lora", "lora_weights", "adapter", "network", "module", "model", "generator",
    "transformer", "dit", "unet", "weights", "params", "generator_ema", "ema",
)  # fmt: skip
"""Names under which the tensors stand, the first of these that there is."""
SETTINGS = ("lora_config", "adapter_config", "peft_config", "config", "network_config")
NUMBERS = ("lora_alpha", "alpha", "network_alpha", "lora_rank", "rank", "r", "network_dim", "use_rslora")
"""Names of numbers that a file's metadata may have as well."""


def unpacked(loaded: object) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A flat dict of tensors, and what stands beside them as a file's metadata would hold it.

    Raises:
        ValueError: there are none.
    """
    metadata: dict[str, str] = {}
    while isinstance(loaded, Mapping):
        metadata = {**_said(loaded), **metadata}
        holding = [name for name in CONTAINERS if isinstance(loaded.get(name), Mapping) and next(_leaves(loaded[name]), None)]
        if not holding or any(isinstance(value, torch.Tensor) for value in loaded.values()):
            tensors = dict(_leaves(loaded))  # of a tree of modules with the names of all
            if tensors:
                return tensors, metadata
            break
        loaded = loaded[holding[0]]
    raise ValueError("it holds no tensors")


def _leaves(tree: Mapping[object, object], before: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in tree.items():
        if isinstance(value, torch.Tensor):
            yield f"{before}{name}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")


def _said(loaded: Mapping[object, object]) -> dict[str, str]:
    said = {name: str(loaded[name]) for name in NUMBERS if isinstance(loaded.get(name), (int, float))}
    for name in SETTINGS:
        fields = loaded.get(name)
        if isinstance(fields, Mapping) and "lora_alpha" in fields:
            plain = {key: value for key, value in fields.items() if isinstance(value, (int, float, str, dict, list, type(None)))}
            return {**said, "lora_config": json.dumps(plain)}
    return said
