"""What tells a base from others of equal size: file name, input channels, expert, and some of its biases.

Biases are hardly ever quantized, no LoRA changes them, and they lie at the same places in every naming of a family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..objective import SigmaRange
from . import family_of
from .description import FamilyDescription
from .expert_names import EXPERTS, named_expert

NUM_VALUES = 16
"""Of each bias, evenly spaced."""
LEAST_BIASES = 3
LEAST_LIKENESS = 0.995
"""Mean cosine of the biases. Copies in bfloat16 and in both kinds of fp8 keep 0.998 and more."""
EQUAL = 1 - 1e-6
"""Of biases that are the same in every digit; experts that differ little have more than `LEAST_LIKENESS`, and count by their names."""
DIGITS = 4

Record = dict[str, object]


@dataclass(frozen=True)
class Expert:
    """One of two DiTs that share a denoising: its name, and the noise levels at which it runs."""

    name: str
    sigma_range: SigmaRange


def expert_of(transformer: nn.Module, file: str | None) -> Expert | None:
    """Which expert a DiT is, by the name of its file and its input channels; None where it is none, or its range is not known."""
    name, boundary = named_expert(file), expert_boundary(transformer)
    if name is None or boundary is None:
        return None
    return Expert(name, (boundary, 1.0) if name == EXPERTS[0] else (0.0, boundary))


def expert_boundary(transformer: nn.Module) -> float | None:
    """The noise level (sigma) at which models of two experts of this kind switch; None where it is not known, or there are none."""
    return family_of(transformer).expert_boundaries.get(_in_channels(transformer))


def base_record(transformer: nn.Module, file: str | None) -> Record:
    """JSON-able; without what is not known.

    Args:
        file: name of the file or folder that the DiT comes from.
    """
    known = {
        "file": file,
        "expert": named_expert(file),
        "in_channels": _in_channels(transformer),
        "signature": signature(transformer),
    }
    return {name: value for name, value in known.items() if value}


def signature(transformer: nn.Module) -> dict[str, list[float]]:
    """Values of biases in the first, middle and last block, by block and the family's name of the layer; only those that can be read."""
    family = family_of(transformer)
    blocks = list(family.blocks(transformer))
    found = {}
    for index in sorted({0, len(blocks) // 2, len(blocks) - 1}):
        block, block_list = blocks[index]
        for layer in (layer for site in block_list.sites for layer in site.linear_layers):
            values = _values([getattr(part.linear, "bias", None) for part in family.layer_parts(block, layer)])
            if values:
                found[f"{index}-{layer}"] = values
    return found


def base_difference(recorded: object, transformer: nn.Module, file: str | None) -> str | None:
    """A sentence on how a base differs from the one that a pair's header records, None where it is the same or nothing is known."""
    if not isinstance(recorded, Mapping):
        return None
    now = base_record(transformer, file)
    likeness = _likeness(recorded.get("signature"), now.get("signature"))
    is_same = likeness is not None and likeness >= EQUAL
    reasons = []
    for name, shown in (("in_channels", _channels_shown), ("expert", _expert_shown)):
        before, after = recorded.get(name), now.get(name)
        is_telling = name == "in_channels" or not is_same  # the same weights may lie under a wrong name
        if is_telling and type(before) is type(after) and before is not None and before != after:
            reasons.append(f"{shown(family_of(transformer), before)} there, {shown(family_of(transformer), after)} here")
    if likeness is not None and likeness < LEAST_LIKENESS:
        reasons.append("other weights")
    if not reasons:
        return None
    made_for, here = (f" ({name})" if isinstance(name, str) else "" for name in (recorded.get("file"), file))
    return (
        f"The pair fits this model{here} in size, but was trained on another one{made_for}: {'; '.join(reasons)}. It may act weakly or "
        "wrongly here: load the model that it was trained on."
    )


def _values(biases: list[object]) -> list[float]:
    """Of the biases of a layer's parts; none of what is quantized, not loaded, or zero."""
    for bias in biases:
        if type(bias) not in (torch.Tensor, nn.Parameter) or bias.is_meta or not bias.is_floating_point() or bias.ndim != 1:
            return []
    bias = torch.cat(biases)
    places = torch.linspace(0, len(bias) - 1, min(NUM_VALUES, len(bias))).round().long()
    values = bias.detach()[places.to(bias.device)].float().cpu()
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()] if values.isfinite().all() and values.any() else []


def _likeness(before: object, after: object) -> float | None:
    """Mean cosine of biases that both have; None where these are too few."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    both = [(before[name], after[name]) for name in before if name in after]
    try:
        pairs = [torch.tensor(values, dtype=torch.float64) for values in both if len(values[0]) == len(values[1])]
    except (TypeError, ValueError):
        return None
    cosines = [float(torch.nn.functional.cosine_similarity(*values, dim=0)) for values in pairs]
    return sum(cosines) / len(cosines) if len(cosines) >= LEAST_BIASES else None


def _in_channels(transformer: nn.Module) -> int | None:
    try:
        layer = transformer.get_submodule(family_of(transformer).patch_layer)
    except AttributeError:
        return None
    width = getattr(layer, "in_channels", getattr(layer, "in_features", None))
    return width if isinstance(width, int) else None


def _channels_shown(family: FamilyDescription, channels: object) -> str:
    kind = family.variants.get(channels)
    return f"{channels} input channels" + (f" ({kind})" if kind else "")


def _expert_shown(family: FamilyDescription, expert: object) -> str:
    return f"the {expert} expert"
