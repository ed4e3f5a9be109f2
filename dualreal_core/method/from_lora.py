"""A pair with one side out of plain low-rank updates of a DiT's linear layers, as LoRA files of other programs hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import InputError
from ..families import family_of, is_linear
from ..families.lora_names import PER_SAMPLE_LAYERS
from .pair import ROLES, AdapterPair, PairConfig, Role, base_sizes, lora_key

SCALE = 2.0
"""Sum of both weights: an even blend then gives each side weight 1, its LoRA at full strength."""


@dataclass(frozen=True)
class LinearUpdate:
    """The update `up @ down` of a linear layer's weight, or of some of its output rows, scaling included.

    Attributes:
        path: of the layer, in the DiT.
        down: (R, in width).
        up: (number of rows, R).
        rows: first row and number of rows; None: all.
    """

    path: str
    down: torch.Tensor
    up: torch.Tensor
    rows: tuple[int, int] | None = None


def one_sided_pair(transformer: nn.Module, role: Role, updates: Iterable[LinearUpdate], source: str = "The LoRA") -> AdapterPair:
    """A pair whose side `role` computes the updates, float32 on the CPU; the other side is absent.

    Several updates of one layer, as of the parts of a fused one, become one adapter. Those of rank 0 are left out.

    Args:
        source: what the updates come from, for error messages.

    Raises:
        InputError: an update is of no linear layer in a block, or of other widths than the layer; or there is none.
    """
    places = block_layers(transformer)
    by_key: dict[str, tuple[BlockLayer, list[LinearUpdate]]] = {}
    for update in updates:
        if update.path not in places:
            raise InputError(
                f"{source} changes {update.path}, which is no linear layer on tokens inside a block, so it cannot be weighed per "
                "block: apply it with the stock LoRA loader."
            )
        place = places[update.path]
        _check_widths(update, transformer.get_submodule(update.path), source)
        if not update.down.shape[0]:  # of rank 0, as tools that shrink LoRAs leave them
            continue
        first_row, num_rows = update.rows or (0, update.up.shape[0])
        in_whole = replace(update, rows=(place.first_row + first_row, num_rows))
        by_key.setdefault(lora_key(place.block, place.layer), (place, []))[1].append(in_whole)
    if not by_key:
        raise InputError(f"{source} changes no layer of this model: use a LoRA that was made for it, and whose rank is not 0.")
    in_running_order = sorted(by_key.items(), key=lambda item: (int(item[0].partition("-")[0]), item[0]))
    weights = {key: _stacked(parts, place.num_rows) for key, (place, parts) in in_running_order}
    rank = max(down.shape[0] for down, _ in weights.values())
    sizes = base_sizes(transformer)
    config = PairConfig(
        **sizes,
        **{f"{other}_kind": "lora" if other == role else "none" for other in ROLES},
        **{f"{role}_rank": rank, f"{role}_alpha": float(rank)},
        target_layers=tuple(sorted({key.partition("-")[2].replace("/", ".") for key in weights})),
        learned_range=0.0,
        num_groups=min(PairConfig.num_groups, sizes["num_blocks"]),
        scale=SCALE,
    )
    shapes = {key: (down.shape[1], up.shape[0], down.shape[0]) for key, (down, up) in weights.items()}
    with torch.device("meta"):
        pair = AdapterPair(config, lora_shapes={role: shapes})
    state = {f"{key}.{part}.weight": weight for key, both in weights.items() for part, weight in zip(("down", "up"), both, strict=True)}
    pair.sides[role].load_state_dict(state, assign=True)
    return pair


@dataclass(frozen=True)
class BlockLayer:
    """The family's name of a linear layer of a block, and its outputs among those of the layer of that name.

    Attributes:
        block: its number.
        layer: the name.
        first_row: the first of its outputs.
        num_rows: all outputs of the layer of that name.
    """

    block: int
    layer: str
    first_row: int
    num_rows: int


def block_layers(transformer: nn.Module) -> dict[str, BlockLayer]:
    """Every linear layer on tokens in a block, by its path in the DiT."""
    family = family_of(transformer)
    paths = [f"{part.path}.{index}" for part in family.block_lists for index in range(len(transformer.get_submodule(part.path)))]
    found = {}
    for number, (block, _) in enumerate(family.blocks(transformer)):
        own = {path: module for path, module in block.named_modules() if is_linear(module)}
        named: dict[str, BlockLayer] = {}
        for layer, listed in family.layer_paths.items():
            if set((listed,) if isinstance(listed, str) else listed) <= set(own):
                parts = list(family.layer_parts(block, layer))
                whole = sum(part.linear.out_features for part in parts)
                named |= {part.path: BlockLayer(number, layer, part.first_row, whole) for part in parts}
        for path in own:
            if path not in PER_SAMPLE_LAYERS.get(family.name, ()):
                found[f"{paths[number]}.{path}"] = named.get(path) or BlockLayer(number, path, 0, own[path].out_features)
    return found


def _check_widths(update: LinearUpdate, linear: nn.Linear, source: str) -> None:
    first_row, num_rows = update.rows or (0, linear.out_features)
    widths, wanted = (update.down.shape[1], update.up.shape[0]), (linear.in_features, num_rows)
    if widths != wanted or first_row + num_rows > linear.out_features:
        raise InputError(
            f"{source} changes {update.path} at {widths[0]} to {widths[1]} wide, but the layer is {wanted[0]} to {wanted[1]} wide: "
            "use the model that the LoRA was made for."
        )
    if update.down.shape[0] != update.up.shape[1]:
        raise InputError(
            f"{source} has matrices of rank {update.down.shape[0]} and {update.up.shape[1]} for {update.path}: use another copy."
        )


def _stacked(updates: list[LinearUpdate], num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All updates of one layer as one: down (sum of R, in width), up (num_rows, sum of R)."""
    down = torch.cat([update.down.float() for update in updates])
    up = torch.zeros(num_rows, down.shape[0])
    first_column = 0
    for update in updates:
        rows, rank = update.up.shape
        first_row = 0 if update.rows is None else update.rows[0]
        up[first_row : first_row + rows, first_column : first_column + rank] = update.up
        first_column += rank
    return down, up
