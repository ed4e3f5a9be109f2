"""Where a file's rows stand in another order than its names say, by what else it holds; seen in files for MiniMax-H3."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...families import family_of
from ...families.lora_names import NamedRows, Target, sub_rows
from .keys import FileLayer

GATE_FIRST = "swiglu_gate_first"
"""In SimpleTuner's configuration: the two halves of `ff.net.0.proj` stand as in ComfyUI."""
BY_HEAD = "default"
"""The adapter's name that DiffSynth-Studio writes, whose `qkv_proj` has q, k and v side by side for each head."""


def reordered(transformer: nn.Module, layer: FileLayer, target: Target, config: Mapping[str, object]) -> Target:
    """A target in the order of the file's rows."""
    if family_of(transformer).name != "minimax-h3":
        return target
    if config.get(GATE_FIRST) is True and layer.name.endswith("ff.net.0.proj"):
        return tuple(sorted(target, key=lambda rows: rows.first_row))
    if layer.name.endswith("attn.qkv_proj") and BY_HEAD in layer.adapters:
        return _by_head(target, transformer.get_submodule("blocks.0.attn.q_norm").weight.numel())
    return target


def _by_head(target: Target, head: int) -> Target:
    third = sum(rows.num_rows for rows in target) // 3
    found: list[NamedRows] = []
    for first in range(0, third, head):
        for side in range(3):
            found += sub_rows(target, side * third + first, head)
    return tuple(found)
