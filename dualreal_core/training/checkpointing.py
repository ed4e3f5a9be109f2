"""Gradient checkpointing block by block, and copies of what autograd saves where blocks overwrite their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ..families import FamilyDescription, family_of
from ..method.attach import Attachment


def safe_saving(family: FamilyDescription) -> AbstractContextManager[object]:
    """Inside, autograd keeps copies of activations where the family's blocks overwrite them; weights are not copied."""
    return saved_tensors_hooks(_copy, lambda tensor: tensor) if family.changes_in_place else nullcontext()


@contextmanager
def checkpointed(transformer: nn.Module, attachment: Attachment) -> Iterator[None]:
    """Inside, each block keeps its inputs alone and is run again for the backward pass.

    The re-run is given the blend weights of its own call, and copies of the inputs where blocks overwrite them.
    """
    family = family_of(transformer)
    blocks = [block for block, _ in family.blocks(transformer)]
    replaced = {block: block.__dict__.get("forward") for block in blocks}
    for block in blocks:
        block.forward = _Rerun(block.forward, attachment, family)
    try:
        yield
    finally:
        for block, forward in replaced.items():
            del block.forward
            if forward is not None:
                block.forward = forward


class _Rerun:
    """A block's forward under checkpointing.

    Reentrant checkpointing, because hooks that copy what is saved would hide every tensor from the other kind. Gradients
    of weights pass through an argument; an anchor that requires gradients makes the outputs require them.
    """

    def __init__(self, forward: Callable, attachment: Attachment, family: FamilyDescription) -> None:
        self.forward, self.attachment, self.family = forward, attachment, family

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        named = {**dict(enumerate(args)), **kwargs}
        places = [(name, item) for name, value in named.items() for item, one in enumerate(_listed(value)) if isinstance(one, torch.Tensor)]

        def run(anchor: torch.Tensor, weights: torch.Tensor, *tensors: torch.Tensor) -> object:
            changes = self.family.changes_in_place
            given = {name: list(_listed(value)) for name, value in named.items()}
            for (name, item), one in zip(places, tensors, strict=True):
                given[name][item] = one.clone() if changes else one
            whole = {name: tuple(given[name]) if isinstance(value, tuple) else given[name][0] for name, value in named.items()}
            arguments = [whole.pop(index) for index in range(len(args))]
            with self.attachment.weighted(weights), safe_saving(self.family):
                return self.forward(*arguments, **whole)

        weights = self.attachment.weights
        anchor = torch.zeros((), device=weights.device, requires_grad=True)
        tensors = [_listed(named[name])[item] for name, item in places]
        return checkpoint(run, anchor, weights, *tensors, use_reentrant=True, preserve_rng_state=False)


def _listed(value: object) -> tuple:
    """An argument's tensors may be in a tuple, as those of two streams."""
    return value if isinstance(value, tuple) else (value,)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    is_weight = isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
    return tensor if is_weight else tensor.clone()
