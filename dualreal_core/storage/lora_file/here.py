"""A layer of a file where it is to act: its parts, the sizes that they must have, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..lora_strength import LoraStrength
from .keys import FileLayer

USE_OTHER = "use the model that the LoRA was made for"


class BadLayer(ValueError):
    """What is wrong with a layer of a file, to be said behind the file's name."""


class WrongSize(BadLayer):
    """An update of another size than the layer's."""


class NeedsWeight(BadLayer):
    """An update of a layer whose weight cannot be read."""


@dataclass
class Here:
    """A layer of the file, and where it is to act.

    Attributes:
        shape: of the weight, or of the rows of it that are meant; None where the layer is none of the model's.
        weight: (D, C) float32, convolutions flattened; None where it cannot be read.
        bias: (D,) float32, and whether the layer has one; None where it cannot be read.
        left: parts that no kind has taken yet.
    """

    layer: FileLayer
    strength: LoraStrength
    shape: tuple[int, ...] | None
    weight: Callable[[], torch.Tensor | None] = lambda: None
    bias: Callable[[], torch.Tensor | None] = lambda: None
    left: dict[str, torch.Tensor] = field(default_factory=dict)

    def take(self, *names: str) -> list[torch.Tensor | None]:
        """Parts in float32, None for those that the layer has not; they count as taken."""
        return [None if (tensor := self.left.pop(name, None)) is None else tensor.float() for name in names]

    def need(self, *names: str) -> list[torch.Tensor]:
        """Parts in float32.

        Raises:
            BadLayer: one is missing.
        """
        found = self.take(*names)
        lacking = next((name for name, tensor in zip(names, found, strict=True) if tensor is None), None)
        if lacking is not None:
            if set(names) == {"down", "up"}:
                raise BadLayer(f"has only one of the two matrices of {self.layer.name}: it is incomplete; use another copy")
            raise BadLayer(f"lacks {lacking} of {self.layer.name}: it is incomplete; use another copy")
        return found

    def own_weight(self, kind: str) -> torch.Tensor:
        """The layer's weight.

        Raises:
            NeedsWeight: it cannot be read.
        """
        weight = self.weight()
        if weight is None:
            raise NeedsWeight(
                f"is a {kind} ({self.layer.name}), whose effect depends on the model's own weights, and these cannot be read in this "
                "form: load the model in a form with plain or scaled weights"
            )
        return weight

    def own_bias(self, height: int) -> torch.Tensor:
        """The layer's bias, zeros where it has none."""
        bias = self.bias()
        return torch.zeros(height) if bias is None else bias

    def scaling(self, rank: int) -> float:
        """Factor on an update of this rank.

        Raises:
            BadLayer: the rank is 0, in a kind of update that is never shrunk so far.
        """
        if not rank:
            raise BadLayer(f"has an update of rank 0 of {self.layer.name}: it is incomplete; use another copy")
        (whole,) = self.take("scaling")
        if whole is None:
            return self.strength.scaling(self.layer, rank) * self.scalar()
        if self.layer.alpha is not None:
            raise BadLayer(f"has both an alpha and a scale of {self.layer.name}, and which counts is not known: use another copy")
        return float(whole.flatten()[0]) * self.scalar()

    def scalar(self) -> float:
        """LyCORIS's further factor, of layers that have one."""
        (scalar,) = self.take("scalar")
        return 1.0 if scalar is None else float(scalar.flatten()[0])


def check_sizes(here: Here, height: int, width: int) -> None:
    if here.shape is None:
        return
    wanted = (here.shape[0], int(torch.Size(here.shape[1:]).numel()))
    if (height, width) != wanted:
        raise WrongSize(
            f"changes {here.layer.name} at {width} to {height} wide, but the layer is {wanted[1]} to {wanted[0]} wide: {USE_OTHER}"
        )


def check_ranks(here: Here, first: int, second: int) -> None:
    if first != second:
        raise BadLayer(f"has matrices of rank {first} and {second} for {here.layer.name}, which do not fit: use another copy")


def matrix(tensor: torch.Tensor, here: Here) -> torch.Tensor:
    if tensor.ndim < 2:
        raise BadLayer(f"has a matrix of size {list(tensor.shape)} for {here.layer.name}, not of two dimensions: use another copy")
    return tensor.flatten(1)
