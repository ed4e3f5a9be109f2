"""Part `kept`: what autograd keeps for the backward pass of a motion step, besides the weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .measuring import Row, reason, storages
from .models import TRAINED
from .training import PLAIN, Step, arms

MIB = 2**20


def run(quick: bool, rounds: int) -> Iterator[Row]:
    """A line for each arm of each size; each is counted once, as there is no noise in it."""
    for size in TRAINED:
        size = size.tiny if quick else size
        counted: dict[str, int] = {}
        for name, make in arms(size, "motion").items():
            shown = {"model": size.title, "arm": name, "kept, MiB": None, "/ peft": None, "note": ""}
            try:
                counted[name] = kept_bytes(make())
            except Exception as error:
                yield Row({**shown, "note": reason(error)})
                continue
            relative = f"{counted[name] / counted[PLAIN]:.3f}" if PLAIN in counted else None
            yield Row({**shown, "kept, MiB": f"{counted[name] / MIB:.1f}", "/ peft": relative}, {"bytes": counted[name]})


def kept_bytes(step: Step) -> int:
    """Each piece of memory counts once, whole, and only where no weight or buffer lies in it."""
    step.take()
    weights = storages(step.modules)
    kept: dict[int, torch.UntypedStorage] = {}  # held until the step has ended, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step.take()
    return sum(storage.nbytes() for storage in kept.values())
