"""What sides of a pair add to the weights of linear layers when their own weights are fixed: what an ordinary LoRA file can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..errors import InputError
from .adapter import Adapter, LoRA
from .pair import AdapterPair, Role, split_key

Parts = dict[str, torch.Tensor]
"""Tensors of one layer's update, by part: `down` (R, in) and `up` (out, R) of a LoRA; others as `AS_PARTS` names them."""
Place = tuple[int, str]
"""(block, layer)"""


def _lora(adapter: LoRA, weight: float) -> Parts:
    return {"down": adapter.down.weight.detach().float().cpu(), "up": adapter.up.weight.detach().float().cpu() * (adapter.scaling * weight)}


AS_PARTS: dict[type[Adapter], Callable[[Adapter, float], Parts]] = {LoRA: _lora}
"""By kind of adapter, its tensors at a weight, which is folded into one of them."""
BY_OUTPUT = frozenset({"up", "diff", "diff_b"})
"""Parts whose rows are the layer's outputs, so that some of these can be taken alone."""
ADDED = frozenset({"diff", "diff_b"})
"""Parts that two updates of one layer add up."""


def layer_updates(pair: AdapterPair, weights: Mapping[Role, Sequence[float]]) -> dict[Place, Parts]:
    """The update of each layer by all sides that are named, float32 on the CPU; exact for LoRA, whose ranks stand side by side.

    Args:
        pair: for one DiT.
        weights: of each group of blocks, by role, in units of the even weight, half of the pair's scale. Places without any are left out.

    Raises:
        InputError: a side has no such form, or two updates of a layer have none in common.
    """
    even = pair.config.scale / 2
    found: dict[Place, list[Parts]] = {}
    for role, by_group in weights.items():
        _check_side(pair, role)
        for key, adapter in pair.sides[role].items():
            place = split_key(key)
            weight = by_group[pair.config.group_of(place[0])]
            if type(adapter) not in AS_PARTS:
                raise InputError(f"The {role} side acts on {place[1]} by a {type(adapter).__name__}, which has no form in LoRA files.")
            if weight:
                found.setdefault(place, []).append(AS_PARTS[type(adapter)](adapter, weight * even))
    return {place: _joined(place, found[place]) for place in sorted(found)}


def of_rows(parts: Parts, rows: torch.Tensor, place: Place) -> Parts:
    """The update of some of a layer's outputs; of a LoRA without the ranks that add nothing to these.

    Raises:
        InputError: it has no such part.
    """
    fixed = [name for name in parts if name not in BY_OUTPUT and name != "down"]
    if fixed:
        raise InputError(
            f"The update of {place[1]} in block {place[0]} ({fixed[0]}) is of all its outputs at once, and these names split it: write it "
            "by ComfyUI's."
        )
    own = {name: tensor[rows] if name in BY_OUTPUT else tensor for name, tensor in parts.items()}
    if "up" in own:
        used = own["up"].any(dim=0)
        own |= {"down": own["down"][used], "up": own["up"][:, used]}
        if not used.any():
            del own["down"], own["up"]
    return own


def _check_side(pair: AdapterPair, role: Role) -> None:
    kind = pair.config.kind(role)
    if kind == "none":
        raise InputError(f"The pair has no {role} side: choose the other one.")
    if kind.startswith("bottleneck"):
        raise InputError(
            f"The {role} side is of kind {kind!r}, which has no LoRA form, as it is not linear in the tokens: keep it as a pair, or train "
            "one of kind 'lora'."
        )


def _joined(place: Place, updates: list[Parts]) -> Parts:
    if len(updates) == 1:
        return updates[0]
    names = {name for parts in updates for name in parts}
    if names == {"down", "up"}:
        return {"down": torch.cat([one["down"] for one in updates]), "up": torch.cat([one["up"] for one in updates], dim=1)}
    if names <= ADDED:
        return {name: sum(one[name] for one in updates if name in one) for name in sorted(names)}
    raise InputError(
        f"Both sides act on {place[1]} in block {place[0]}, and not both as LoRA ({', '.join(sorted(names))}): a file cannot hold their "
        "sum; write each side by itself."
    )
