"""Checkpoints of the paper's implementation: one flat dict of parameters, no sizes, read without running code."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..errors import InputError
from ..families import COGVIDEOX
from ..files.torch_file import load_whole
from ..method.pair import AdapterPair, PairConfig

_ADAPTER = re.compile(r"transformer_blocks\.(\d+)\.(id|motion)_(attn|ff)_adapter\.(down|up|condition)_linear\.(weight|bias)")
_LAYERS = {"condition": "condition_proj"}
_ROLES = {"id": "identity", "motion": "motion"}
_CONTROLLER = {
    "timestep_encoder.1": "modulation",
    "channel_encoder.0": "tokens_in",
    "norm": "norm",
    "fuse_proj": "expand",
    "fuse_proj_down": "contract",
    "fusion_net.1": "hidden",
    "fusion_net.3": "out",
}


def is_reference(tensors: dict[str, torch.Tensor]) -> bool:
    """Whether these are the reference's names."""
    return any(_ADAPTER.fullmatch(name) for name in tensors)


def read_reference(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.pth` of the reference, in float32. Code inside the file is not executed.

    Raises:
        InputError: no such file, damaged, or it holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path of the checkpoint.")
    try:
        loaded = load_whole(path)
    except ValueError as error:
        raise InputError(
            f"{path} is no checkpoint of plain tensors (nothing in it was executed): it is damaged or holds code; use the original file."
        ) from error
    is_flat = isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded)
    if not is_flat or not all(isinstance(tensor, torch.Tensor) for tensor in loaded.values()):
        raise InputError(f"{path} does not hold a flat dict of tensors as the reference saves: use its final checkpoint.")
    return {name: tensor.detach().float() for name, tensor in loaded.items()}


def pair_from_reference(tensors: dict[str, torch.Tensor], path: Path) -> AdapterPair:
    """A pair from the reference's tensors; sizes are read off their shapes.

    Raises:
        InputError: tensors are missing, left over, or of contradicting shapes.
    """
    try:
        return _build(tensors)
    except (IndexError, KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        reason = (str(error).strip().splitlines() or ["a tensor is missing"])[-1].strip()
        raise InputError(f"{path} is no complete checkpoint of the reference ({reason}): use its final checkpoint.") from error


def _build(tensors: dict[str, torch.Tensor]) -> AdapterPair:
    broken = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    if broken is not None:
        raise ValueError(f"{broken} holds values that are no numbers")
    renamed: dict[str, torch.Tensor] = {}
    blocks, roles, condition_dims = set(), set(), {}
    for name, tensor in tensors.items():
        match = _ADAPTER.fullmatch(name)
        if match is None:
            layer, _, kind = name.removeprefix("controller.").rpartition(".")
            renamed[f"controller.{_CONTROLLER[layer]}.{kind}"] = tensor.float()
            continue
        block, role, site, layer, kind = match.groups()
        blocks.add(int(block))
        roles.add(_ROLES[role])
        if layer == "condition" and kind == "weight":
            condition_dims[_ROLES[role]] = tensor.shape[1]
        renamed[f"sides.{_ROLES[role]}.{block}-{site}.{_LAYERS.get(layer, layer)}.{kind}"] = tensor.float()
    down = {role: renamed[f"sides.{role}.0-attn.down.weight"] for role in roles}
    has_controller = "controller.out.bias" in renamed
    config = PairConfig(
        family=COGVIDEOX.name,
        dim=next(iter(down.values())).shape[1],
        num_blocks=max(blocks) + 1,
        time_dim=renamed["controller.modulation.weight"].shape[1] if has_controller else 1,
        identity_kind="bottleneck-skip" if "identity" in roles else "none",
        motion_kind="bottleneck-skip" if "motion" in roles else "none",
        **{f"{role}_bottleneck_dim": weight.shape[0] for role, weight in down.items()},
        identity_condition_dim=condition_dims.get("identity"),
        motion_condition_dim=condition_dims.get("motion"),
        has_controller=has_controller,
        num_groups=renamed["controller.out.bias"].shape[0] if has_controller else 1,
    )
    pair = AdapterPair(config, [f"{block}-{site.name}" for block in sorted(blocks) for site in COGVIDEOX.block_lists[0].sites])
    pair.load_state_dict(renamed)
    return pair
