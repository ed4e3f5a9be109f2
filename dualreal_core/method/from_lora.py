"""A pair with one side out of updates of a DiT's linear layers, as LoRA files of other programs hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InputError
from ..families import family_of, is_linear
from ..families.lora_names import PER_SAMPLE_LAYERS, NamedRows, Target
from .layer_forms import FormAdapter, FormSum, LayerForm, LowRank, Rows, low_rank_square
from .pair import ROLES, AdapterPair, LoraShape, PairConfig, Role, base_sizes, lora_key

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


@dataclass(frozen=True)
class FormUpdate:
    """An update of any form of a linear layer, of some of its outputs, or of several layers that are one to the update.

    Attributes:
        target: the outputs, in their order.
        square: of the Frobenius norm of its change of the weight; None where that is not known.
    """

    target: Target
    form: LayerForm
    square: float | None = None


def one_sided_pair(
    transformer: nn.Module, role: Role, updates: Iterable[LinearUpdate | FormUpdate], source: str = "The LoRA"
) -> AdapterPair:
    """A pair whose side `role` computes the updates, float32 on the CPU; the other side is absent.

    Several updates of one layer, as of the parts of a fused one, become one adapter. Those of rank 0 are left out. Weights of forms
    become the pair's, of other updates they are copied.

    Args:
        source: what the updates come from, for error messages.

    Raises:
        InputError: an update is of no linear layer in a block, or of other widths than the layer; or there is none.
    """
    places = block_layers(transformer)
    by_key: dict[str, tuple[int, list[tuple[LayerForm, Rows]]]] = {}
    squares: dict[str, list[float | None]] = {}
    for update in updates:
        if isinstance(update, LinearUpdate):
            if update.path in places:
                _check_widths(update, transformer.get_submodule(update.path), source)
            if not update.down.shape[0]:  # of rank 0, as tools that shrink LoRAs leave them
                continue
            update = _as_form(update)
        key, whole, rows = _place(update.target, places, source)
        by_key.setdefault(key, (whole, []))[1].append((update.form, rows))
        squares.setdefault(key, []).append(update.square)
    if not by_key:
        raise InputError(f"{source} changes no layer of this model: use a LoRA that was made for it, and whose rank is not 0.")
    in_running_order = dict(sorted(by_key.items(), key=lambda item: (int(item[0].partition("-")[0]), item[0])))
    plain = {key: _stacked(parts, whole) for key, (whole, parts) in in_running_order.items() if _is_plain(parts)}
    rank = max((down.shape[0] for down, _ in plain.values()), default=1)
    sizes = base_sizes(transformer)
    config = PairConfig(
        **sizes,
        **{f"{other}_kind": "lora" if other == role else "none" for other in ROLES},
        **{f"{role}_rank": rank, f"{role}_alpha": float(rank)},
        target_layers=tuple(sorted({key.partition("-")[2].replace("/", ".") for key in in_running_order})),
        has_controller=False,
        num_groups=min(PairConfig.num_groups, sizes["num_blocks"]),
        scale=SCALE,
    )
    adapters: dict[str, LoraShape] = {}
    for key, (_, parts) in in_running_order.items():
        if key in plain:
            down, up = plain[key]
            adapters[key] = down.shape[1], up.shape[0], down.shape[0]
        else:
            norm = -1.0 if None in squares[key] else sum(squares[key]) ** 0.5
            adapters[key] = FormAdapter(FormSum.of(parts), norm=torch.tensor([norm])).float()
    with torch.device("meta"):
        pair = AdapterPair(config, lora_shapes={role: adapters})
    for key, both in plain.items():
        state = {f"{part}.weight": weight for part, weight in zip(("down", "up"), both, strict=True)}
        pair.sides[role][key].load_state_dict(state, assign=True)
    _take_own_memory(pair.sides[role])
    return pair


def _take_own_memory(side: nn.Module) -> None:
    """Copies weights that share memory, as those of the layers that one of a file joins: each is trained and saved as its own."""
    taken: set[int] = set()
    for weight in side.parameters():
        memory = weight.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() != weight.nbytes:
            weight.data = weight.detach().clone(memory_format=torch.contiguous_format)
        taken.add(weight.untyped_storage().data_ptr())


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


def _as_form(update: LinearUpdate) -> FormUpdate:
    first_row, num_rows = update.rows or (0, update.up.shape[0])
    target = (NamedRows(update.path, first_row, num_rows),)
    down, up = update.down.detach().clone(), update.up.detach().clone()
    return FormUpdate(target, LowRank(down=down, up=up), low_rank_square(down, up))


def _place(target: Target, places: dict[str, BlockLayer], source: str) -> tuple[str, int, Rows]:
    """The key of the adapter that a target is of, all outputs of its layer, and the target's among these; none where it is all of them."""
    found: list[tuple[str, int, int, int]] = []
    for rows in target:
        if rows.path not in places:
            raise InputError(
                f"{source} changes {rows.path}, which is no linear layer on tokens inside a block, so it cannot be weighed per "
                "block: apply it with the stock LoRA loader."
            )
        place = places[rows.path]
        found.append((lora_key(place.block, place.layer), place.num_rows, place.first_row + rows.first_row, rows.num_rows))
    keys = {key for key, *_ in found}
    if len(keys) > 1:
        raise InputError(f"{source} changes {' and '.join(sorted(keys))} by one update, which are separate layers here: use another file.")
    runs: list[tuple[int, int]] = []
    for *_, first, number in found:
        if runs and sum(runs[-1]) == first:
            runs[-1] = runs[-1][0], runs[-1][1] + number
        else:
            runs.append((first, number))
    whole = found[0][1]
    return keys.pop(), whole, () if runs == [(0, whole)] else tuple(runs)


def _is_plain(parts: list[tuple[LayerForm, Rows]]) -> bool:
    return all(isinstance(form, LowRank) for form, _ in parts)


def _stacked(parts: list[tuple[LowRank, Rows]], num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All updates of one layer as one: down (sum of R, in width), up (num_rows, sum of R)."""
    if len(parts) == 1 and not parts[0][1]:
        form = parts[0][0]
        return form.down.detach().float(), form.up.detach().float()
    down = torch.cat([form.down.detach().float() for form, _ in parts])
    up = torch.zeros(num_rows, down.shape[0])
    first_column = 0
    for form, rows in parts:
        height, rank = form.up.shape
        begin = 0
        for first, number in rows or ((0, height),):
            up[first : first + number, first_column : first_column + rank] = form.up.detach()[begin : begin + number]
            begin += number
        first_column += rank
    return down, up
