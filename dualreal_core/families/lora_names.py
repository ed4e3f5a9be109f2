"""Every name by which LoRA files may call a weight of a DiT, in whichever program it runs and in whichever they were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from . import CANONICAL, family_of
from .layer_spellings import OTHER_OUTSIDE, SPELLINGS, Joined, Spelled, Swapped

PER_SAMPLE_LAYERS: dict[str, tuple[str, ...]] = {
    "cogvideox": ("norm1.linear", "norm2.linear"),
    "minimax-h3": ("adaln_proj.linear",),
    "kandinsky5": ("visual_modulation.out_layer",),
}
"""By family, linear layers of blocks that read no tokens but vectors of a whole sample, (B, E): adapters cannot act there."""
OUT = ".to_out.0"


@dataclass(frozen=True)
class NamedRows:
    """A run of outputs of a module of the DiT, or of the first dimension of a parameter that stands alone.

    Attributes:
        path: of the module or parameter.
    """

    path: str
    first_row: int
    num_rows: int


Target = tuple[NamedRows, ...]
"""What a name means: the runs of outputs that are its own, in their order; of one weight, or of several that the name joins."""


def lora_names(transformer: nn.Module) -> dict[str, Target]:
    """Every name, without prefix, that files may have for a module with weights, or a parameter of its own, of the DiT."""
    family = family_of(transformer)
    spellings = SPELLINGS[family.name]
    heights = _heights(transformer)
    names: dict[str, Target] = {path: (NamedRows(path, 0, height),) for path, height in heights.items()}
    inputs = _inputs(transformer)
    for listed in spellings.blocks:
        lists = [path for path in dict.fromkeys((listed.comfy, listed.diffusers)) if _num_blocks(transformer, path)]
        if not lists:
            continue
        own_list, others = lists[0], list(dict.fromkeys((listed.comfy, listed.diffusers, *listed.other_paths)))
        for index in range(_num_blocks(transformer, own_list)):
            prefix = f"{own_list}.{index}."
            own = {path.removeprefix(prefix): height for path, height in heights.items() if path.startswith(prefix)}
            table = _spelled(own, {path: inputs.get(prefix + path, 0) for path in own}, listed.layers, listed.others)
            table |= {layer: (NamedRows(layer, 0, height),) for layer, height in own.items() if layer not in table}
            for layer, target in table.items():
                whole = tuple(NamedRows(prefix + rows.path, rows.first_row, rows.num_rows) for rows in target)
                for path in others:
                    names.setdefault(f"{path}.{index}.{layer}", whole)
    table = _spelled(heights, inputs, spellings.outside, OTHER_OUTSIDE.get(family.name, {}))
    for name, target in table.items():
        names.setdefault(name, target)
    return names | {name.removesuffix(".0"): target for name, target in names.items() if name.endswith(OUT)}


def spellings_of(family: str, path: str, layer: str) -> dict[str, tuple[str, Spelled]]:
    """What ComfyUI and diffusers call a linear layer of a family's blocks: path of the block list, and of the layer in a block.

    Args:
        path: of the block list in the family's canonical description.
        layer: the family's canonical name, as keys of a LoRA side have it.
    """
    canonical = [listed.path for listed in CANONICAL[family].block_lists].index(path)
    listed = SPELLINGS[family].blocks[canonical]
    if layer in listed.layers:
        return {"comfy": (listed.comfy, layer), "diffusers": (listed.diffusers, listed.layers[layer])}
    ours = next((ours for ours, theirs in listed.layers.items() if theirs == layer), layer)
    return {"comfy": (listed.comfy, ours), "diffusers": (listed.diffusers, layer)}


def _spelled(
    own: Mapping[str, int], inputs: Mapping[str, int], layers: Mapping[str, Spelled], others: Mapping[str, str | tuple[str, ...]]
) -> dict[str, Target]:
    """Names of a table for what a module has; own: number of outputs by path."""
    found: dict[str, Target] = {}
    for ours, theirs in layers.items():
        whole = _whole(own, ours, theirs)
        if whole is None:
            continue
        found[ours] = whole
        if isinstance(theirs, str):
            found[theirs] = whole
        elif isinstance(theirs, Swapped):
            found[theirs.name] = swapped(whole)
        else:
            found |= dict(zip(theirs.names, _members(whole, theirs, own, inputs), strict=True))
    for other, named in others.items():
        parts = [found.get(ours) or ((NamedRows(ours, 0, own[ours]),) if ours in own else ()) for ours in _each(named)]
        if all(parts):
            found[other] = tuple(rows for part in parts for rows in part)
    return found


def _each(named: str | tuple[str, ...]) -> tuple[str, ...]:
    return (named,) if isinstance(named, str) else named


def _whole(own: Mapping[str, int], ours: str, theirs: Spelled) -> Target | None:
    """What ComfyUI's layer is here; None where this class has it not."""
    if ours in own:
        return (NamedRows(ours, 0, own[ours]),)
    if isinstance(theirs, Joined):
        return tuple(NamedRows(name, 0, own[name]) for name in theirs.names) if all(name in own for name in theirs.names) else None
    name = theirs.name if isinstance(theirs, Swapped) else theirs
    if name not in own:
        return None
    whole = (NamedRows(name, 0, own[name]),)
    return swapped(whole) if isinstance(theirs, Swapped) else whole


def _members(whole: Target, joined: Joined, own: Mapping[str, int], inputs: Mapping[str, int]) -> Iterator[Target]:
    """The outputs of each of the layers that one joins."""
    if len(whole) > 1:
        yield from ((rows,) for rows in whole)
        return
    (rows,) = whole
    size = rows.num_rows // joined.num_equal if joined.num_equal else inputs[rows.path]
    for index in range(len(joined.names)):
        first = index * size
        yield (NamedRows(rows.path, first, rows.num_rows - first if index == len(joined.names) - 1 else size),)


def swapped(whole: Target) -> Target:
    """The outputs of one layer, their second half first."""
    height = sum(rows.num_rows for rows in whole)
    return sub_rows(whole, height // 2, height - height // 2) + sub_rows(whole, 0, height // 2)


def sub_rows(target: Sequence[NamedRows], first: int, number: int) -> Target:
    """A run of the outputs that a name means."""
    found, begin = [], 0
    for rows in target:
        low, high = max(first, begin), min(first + number, begin + rows.num_rows)
        if low < high:
            found.append(NamedRows(rows.path, rows.first_row + low - begin, high - low))
        begin += rows.num_rows
    return tuple(found)


def _heights(transformer: nn.Module) -> dict[str, int]:
    """Number of outputs of each module with a weight, by its path; size of each parameter that stands alone."""
    found = {}
    for path, module in transformer.named_modules():
        weight = vars(module).get("_parameters", {}).get("weight")
        if weight is not None or hasattr(module, "out_features"):
            found[path] = getattr(module, "out_features", None) or weight.shape[0]
        for name, parameter in module.named_parameters(recurse=False):
            if name not in ("weight", "bias"):
                found[f"{path}.{name}".lstrip(".")] = parameter.shape[0] if parameter.ndim else 1
    return found


def _inputs(transformer: nn.Module) -> dict[str, int]:
    return {path: module.in_features for path, module in transformer.named_modules() if hasattr(module, "in_features")}


def _num_blocks(transformer: nn.Module, path: str) -> int:
    try:
        return len(transformer.get_submodule(path))
    except (AttributeError, TypeError):
        return 0
