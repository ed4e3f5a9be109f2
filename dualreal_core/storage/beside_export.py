"""What LoRAs change outside of a pair's reach, with a constant strength, as tensors of a LoRA file in ComfyUI's names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from ..method.layer_forms import LowRank
from ..method.layer_updates import Parts, joined
from .lora_file import BesideUpdate


@dataclass(frozen=True)
class BesideParts:
    """Attributes:
    parts: of updates at their strengths, by path in ComfyUI's DiT.
    left: names of weights whose updates a file cannot hold.
    """

    parts: dict[str, Parts] = field(default_factory=dict)
    left: tuple[str, ...] = ()


def beside_parts(updates: Iterable[tuple[BesideUpdate, float]]) -> BesideParts:
    """The parts of updates, each with its strength.

    Parameters that stand alone are left, which ComfyUI's loader passes over, and updates that depend on the weight.
    """
    found: dict[str, list[Parts]] = {}
    left: list[str] = []
    for update, strength in updates:
        own = _parts(update, strength)
        if own is None:
            left.append(update.parameter)
        elif strength:
            found.setdefault(update.path, []).append(own)
    return BesideParts({path: joined(own) for path, own in found.items()}, tuple(dict.fromkeys(left)))


def _parts(update: BesideUpdate, strength: float) -> Parts | None:
    total, is_weight = update.total, update.parameter == f"{update.path}.weight"
    if total.reads_weight or not (is_weight or update.is_bias):
        return None
    parts = [(form, total.rows[key]) for key, form in total.parts.items() if form.changes_weight]
    if is_weight and len(update.shape) == 2 and all(type(form) is LowRank and not rows for form, rows in parts):
        return joined([{"down": form.down.detach().float(), "up": form.up.detach().float() * strength} for form, _ in parts])
    delta = update.delta(torch.zeros(update.shape))
    return None if delta is None else {"diff_b" if update.is_bias else "diff": delta.detach() * strength}
