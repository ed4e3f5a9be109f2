"""What the classes of ComfyUI and of diffusers call a family's blocks and linear layers, for files that either is to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import InputError
from . import CANONICAL, TITLES
from .layer_spellings import SPELLINGS, Joined, Swapped
from .lora_names import spellings_of

Host = Literal["comfy", "diffusers"]
Unit = Literal["row", "third", "half", "width"]
"""Of numbers of rows: one, a third or half of a layer's outputs, or as many as it has inputs."""


@dataclass(frozen=True)
class NamedPart:
    """A linear layer of a host, and which outputs of the family's layer it computes.

    Attributes:
        path: in a block.
        runs: (first, end) of its outputs in their order, in units; None: to the last one.
    """

    path: str
    runs: tuple[tuple[int, int | None], ...] = ((0, None),)
    unit: Unit = "row"

    @property
    def is_whole(self) -> bool:
        """Whether it computes all outputs, in the same order."""
        return self.runs == ((0, None),)

    def rows(self, in_features: int, out_features: int) -> torch.Tensor:
        """Indices of its outputs among those of the family's layer of these widths."""
        unit = {"row": 1, "third": out_features // 3, "half": out_features // 2, "width": in_features}[self.unit]
        return torch.cat([torch.arange(first * unit, out_features if end is None else end * unit) for first, end in self.runs])


@dataclass(frozen=True)
class Naming:
    """What a host calls the blocks and layers of a family.

    Attributes:
        family: its name.
    """

    family: str
    host: Host

    def block_list(self, listed: int) -> str:
        """Path of a list of blocks, by its place among the family's."""
        spellings = SPELLINGS[self.family].blocks[listed]
        return spellings.comfy if self.host == "comfy" else spellings.diffusers

    def parts(self, listed: int, layer: str) -> tuple[NamedPart, ...]:
        """What computes a layer of a block, by the family's name for it."""
        _, spelled = spellings_of(self.family, CANONICAL[self.family].block_lists[listed].path, layer)[self.host]
        if isinstance(spelled, Swapped):
            return (NamedPart(spelled.name, ((1, 2), (0, 1)), "half"),)
        if isinstance(spelled, Joined):
            last = len(spelled.names) - 1
            return tuple(
                NamedPart(name, ((index, None if index == last else index + 1),), "third" if spelled.num_equal else "width")
                for index, name in enumerate(spelled.names)
            )
        return (NamedPart(spelled),)


FIRST_BLOCKS = {"hunyuan": {60: 20, 54: 54}}
"""By family of two kinds of blocks: how many of the first kind published models have, by the number of all: HunyuanVideo, and 1.5."""


def kind_of_block(family: str, layer: str) -> int | None:
    """Which of the family's lists has blocks with a layer of that name; None where several may."""
    lists = CANONICAL[family].block_lists
    if len(lists) == 1:
        return 0
    part = layer.partition(".")[0]
    kinds = {index for index, listed in enumerate(lists) if any(one.split(".")[0] == part for one in _layers_of(family, index))}
    return kinds.pop() if len(kinds) == 1 else None


def places_of_blocks(family: str, num_blocks: int, layers: Sequence[tuple[int, str]]) -> list[tuple[int, int]]:
    """(list, number in it) of each block, which pairs number through all lists.

    Args:
        layers: (block, layer) that are known of the model; they tell where a list ends.

    Raises:
        InputError: they leave it open, and the model is of no published size.
    """
    if len(CANONICAL[family].block_lists) == 1:
        return [(0, block) for block in range(num_blocks)]
    kinds = [(block, kind_of_block(family, layer)) for block, layer in layers]
    least = max((block + 1 for block, kind in kinds if kind == 0), default=0)
    most = min((block for block, kind in kinds if kind == 1), default=num_blocks)
    first = least if least == most else FIRST_BLOCKS.get(family, {}).get(num_blocks, -1)
    if not least <= first <= most:
        raise InputError(
            f"Of the {num_blocks} blocks of this {TITLES[family]} between {least} and {most} are double ones, and the pair acts on too few "
            "to tell: use one that acts on all blocks."
        )
    return [(0, block) if block < first else (1, block - first) for block in range(num_blocks)]


def _layers_of(family: str, index: int) -> list[str]:
    listed = CANONICAL[family].block_lists[index]
    modulation = {"hunyuan": (("img_mod.lin", "txt_mod.lin"), ("modulation.lin",))}.get(family, ((),) * (index + 1))[index]
    return [*(layer for site in listed.sites for layer in site.linear_layers), *listed.other_layers, *modulation]
