"""What all forms of an update of one linear layer have in common, beside the low-rank one that `adapter.LoRA` is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from ...errors import InputError

Layer = Callable[[torch.Tensor], torch.Tensor]
"""Computes the layer itself on other tokens: (..., C) -> (..., D), bias included."""
State = Mapping[str, torch.Tensor]
FORMS: dict[str, type[LayerForm]] = {}
"""Every form by its name; a class enters it where it is defined."""


class LayerForm(nn.Module):
    """An update of a linear layer `y = W x + b`, as a function of its tokens, of its output and of the layer.

    Attributes:
        name: of the form, as files of pairs spell it.
        reads_weight: whether `delta` needs the layer's weight.
        changes_weight, changes_bias: which of the two it can change.
    """

    name: ClassVar[str]
    reads_weight: ClassVar[bool] = False
    changes_weight: ClassVar[bool] = True
    changes_bias: ClassVar[bool] = False

    def __init__(self, **weights: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in weights.items():
            setattr(self, name, nn.Parameter(tensor, requires_grad=False))

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            FORMS[cls.name] = cls

    @classmethod
    def of_state(cls, state: State) -> LayerForm:
        """The form with these weights, by their names in its state."""
        return cls(**state)

    def forward(self, hidden: torch.Tensor, output: torch.Tensor, layer: Layer) -> torch.Tensor:
        """hidden: (..., C); output: (..., D) of the layer, in one dtype -> (..., D), what is added to it."""
        raise NotImplementedError

    def delta(self, weight: torch.Tensor | None) -> torch.Tensor | None:
        """What is added to the layer's weight (D, C), float32; None where nothing is."""
        raise NotImplementedError

    def bias_delta(self, bias: torch.Tensor | None) -> torch.Tensor | None:
        """What is added to the layer's bias (D,), float32; None where nothing is."""
        return None

    def squared_norm(self, weight: torch.Tensor | None) -> float | None:
        """Of the change of the weight, after Frobenius; None where it cannot be known without the layer's weight."""
        if self.reads_weight and weight is None:
            return None
        delta = self.delta(weight)
        return 0.0 if delta is None else float(delta.double().square().sum())

    def of_outputs(self, rows: slice) -> LayerForm:
        """This update for a layer that computes some of the outputs alone.

        Raises:
            InputError: its outputs cannot be told apart.
        """
        raise InputError(
            f"An update of the form {self.name!r} mixes outputs that this model computes by separate layers: use it with the model in "
            "ComfyUI's form."
        )


def taken(state: State, prefix: str) -> dict[str, torch.Tensor]:
    """What lies below a name in a state, by the rest of its names."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def blockwise(values: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Products of runs of values with square matrices: values (..., N B), blocks (N or 1, B, B) -> (..., N B), `v @ block`."""
    number, size, _ = blocks.shape
    apart = values.unflatten(-1, (-1, size))
    pattern = "...nb,bc->...nc" if number == 1 else "...nb,nbc->...nc"
    return torch.einsum(pattern, apart, (blocks[0] if number == 1 else blocks).to(values.dtype)).flatten(-2)


def split_by_names(names: Sequence[str]) -> list[str]:
    """First parts of dotted names, each once, in order."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
