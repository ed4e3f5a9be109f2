"""What sides of a pair add to the weights of linear layers when their own weights are fixed: what an ordinary LoRA file can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from .adapter import Adapter, LoRA
from .layer_forms import Difference, FormAdapter, Hadamard, Kronecker, LayerForm, LowRank, Offset, Rows
from .pair import AdapterPair, Role, split_key

Parts = dict[str, torch.Tensor]
"""Tensors of one layer's update, by part: `down` (R, in) and `up` (out, R) of a LoRA; others as kohya's programs name them."""
Place = tuple[int, str]
"""(block, layer)"""


@dataclass(frozen=True)
class Layer:
    """A place, and the width of its model's tokens."""

    block: int
    name: str
    dim: int

    def height(self, rows: Sequence[Rows]) -> int:
        """Outputs of the layer, where updates are of runs of them: those of fused layers may leave some out."""
        runs = [run for own in rows for run in own]
        last = max(first + number for first, number in runs)
        return max(last, 3 * min(number for _, number in runs) if "qkv" in self.name else 0, 7 * self.dim if self.name == "linear1" else 0)


BY_OUTPUT = frozenset({"up", "diff", "diff_b", "hada_w1_a", "hada_w2_a"})
"""Parts whose rows are the layer's outputs, so that some of these can be taken alone."""


def layer_updates(pair: AdapterPair, weights: Mapping[Role, Sequence[float]]) -> dict[Place, Parts]:
    """The update of each layer by all sides that are named, float32 on the CPU; a sum of LoRAs has their ranks side by side.

    Args:
        pair: for one DiT.
        weights: of each group of blocks, by role, in units of the even weight, half of the pair's scale. Places without any are left out.

    Raises:
        InputError: a side has no such form.
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
                found.setdefault(place, []).append(AS_PARTS[type(adapter)](adapter, weight * even, Layer(*place, pair.config.dim)))
    return {place: joined(found[place]) for place in sorted(found)}


def of_rows(parts: Parts, rows: torch.Tensor, place: Place) -> Parts:
    """The update of some of a layer's outputs; of a LoRA without the ranks that add nothing to these.

    Raises:
        InputError: it has no such part.
    """
    if any(name.startswith("lokr") for name in parts):
        raise InputError(
            f"The update of {place[1]} in block {place[0]} (LoKr) is of all its outputs at once, and these names split it: write it by "
            "ComfyUI's."
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


def _of_lora(adapter: LoRA, weight: float, layer: Layer) -> Parts:
    return {"down": _plain(adapter.down.weight), "up": _plain(adapter.up.weight) * (adapter.scaling * weight)}


def _of_forms(adapter: FormAdapter, weight: float, layer: Layer) -> Parts:
    """Of an update in other forms; of all outputs of the layer."""
    total, weight = adapter.total, weight * float(adapter.strength)
    found = []
    for key, form in total.parts.items():
        if type(form) not in FORM_PARTS:
            kind = form.name.replace("_", " ")
            raise InputError(
                f"The update of {layer.name} in block {layer.block} ({kind}) depends on the model's own weights, so that no file of "
                "additions can hold it: keep it as a pair."
            )
        parts, rows = FORM_PARTS[type(form)](form, weight), total.rows[key]
        found.append(_in_whole(parts, rows, layer.height(list(filter(None, total.rows.values())))) if rows else parts)
    return joined(found)


AS_PARTS: dict[type[Adapter], Callable[[Adapter, float, Layer], Parts]] = {LoRA: _of_lora, FormAdapter: _of_forms}
"""By kind of adapter, its tensors at a weight, which is folded into one of them."""
FORM_PARTS: dict[type[LayerForm], Callable[[LayerForm, float], Parts]] = {
    LowRank: lambda form, weight: {"down": _plain(form.down), "up": _plain(form.up) * weight},
    Kronecker: lambda form, weight: {"lokr_w1": _factor(form, "left") * weight, "lokr_w2": _factor(form, "right")},
    Hadamard: lambda form, weight: {
        "hada_w1_a": _plain(form.up1) * weight, "hada_w1_b": _plain(form.down1),
        "hada_w2_a": _plain(form.up2), "hada_w2_b": _plain(form.down2),
    },
    Difference: lambda form, weight: {"diff": _plain(form.value) * weight},
    Offset: lambda form, weight: {"diff_b": _plain(form.value) * weight},
}  # fmt: skip
"""The same by form; those that read the layer's weight are not among them."""
DENSE: dict[str, Callable[[Parts], torch.Tensor]] = {
    "up": lambda parts: parts["up"] @ parts["down"],
    "lokr_w1": lambda parts: torch.kron(parts["lokr_w1"].contiguous(), parts["lokr_w2"].contiguous()),
    "hada_w1_a": lambda parts: (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"]),
    "diff": lambda parts: parts["diff"],
}
"""By one of its parts, what an update adds to the weight."""


def joined(updates: list[Parts]) -> Parts:
    """The sum of updates: LoRAs rank by rank, any others as a difference of the whole weight; differences of biases beside either."""
    biases = [one["diff_b"] for one in updates if "diff_b" in one]
    rest = [own for one in updates if (own := {name: tensor for name, tensor in one.items() if name != "diff_b"})]
    if len(rest) <= 1:
        whole = rest[0] if rest else {}
    elif all(one.keys() == {"down", "up"} for one in rest):
        whole = {"down": torch.cat([one["down"] for one in rest]), "up": torch.cat([one["up"] for one in rest], dim=1)}
    else:
        whole = {"diff": sum(_dense(one) for one in rest)}
    return {**whole, **({"diff_b": sum(biases)} if biases else {})}


def _dense(parts: Parts) -> torch.Tensor:
    return next(compute(parts) for part, compute in DENSE.items() if part in parts)


def _in_whole(parts: Parts, rows: Rows, height: int) -> Parts:
    """An update of some outputs as one of all; what is not by output becomes a difference."""
    if not set(parts) & {"up", "diff_b"}:
        parts = {"diff": _dense(parts)}
    index = torch.cat([torch.arange(first, first + number) for first, number in rows])
    return {
        name: tensor.new_zeros(height, *tensor.shape[1:]).index_copy(0, index, tensor) if name in BY_OUTPUT else tensor
        for name, tensor in parts.items()
    }


def _factor(form: Kronecker, side: str) -> torch.Tensor:
    whole = getattr(form, side, None)
    return _plain(whole) if whole is not None else _plain(getattr(form, f"{side}_up")) @ _plain(getattr(form, f"{side}_down"))


def _plain(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().float().cpu()
