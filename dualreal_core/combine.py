"""Two pairs into one: the identity side of the first and the motion side of the second, as each was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from .errors import InputError
from .pair import ROLES, AdapterPair, PairConfig, Role


def combine(identity: AdapterPair, motion: AdapterPair) -> AdapterPair:
    """A pair without controller: each side works at the weight it was trained with, which is half its pair's scale.

    Differing scales and LoRA factors are folded into the weights.

    Raises:
        InputError: the sides are missing, or were made for different bases or in forms that one file cannot hold.
    """
    sources: dict[Role, AdapterPair] = {"identity": identity, "motion": motion}
    for role, source in sources.items():
        if role not in source.sides:
            raise InputError(f"The {role} input has no {role} side: give a pair that was trained on that side.")
    for name in ("family", "dim", "num_blocks"):
        ours, theirs = getattr(identity.config, name), getattr(motion.config, name)
        if ours != theirs:
            raise InputError(f"The identity was made for a base with {name} {ours}, the motion for {theirs}: use sides of one base.")
    kinds = {role: source.config.kind(role) for role, source in sources.items()}
    if all(kind.startswith("bottleneck") for kind in kinds.values()):
        _require_equal_widths(identity.config, motion.config)
    factor = motion.config.scale / identity.config.scale
    if factor != 1 and kinds["motion"] == "bottleneck-skip":
        raise InputError("The motion side has an inner skip and another scale than the identity side: combine pairs of one scale.")
    bottleneck = identity.config if kinds["identity"].startswith("bottleneck") else motion.config
    lora = identity.config if kinds["identity"] == "lora" else motion.config
    config = replace(
        identity.config,
        motion_kind=kinds["motion"],
        motion_condition_dim=motion.config.motion_condition_dim,
        bottleneck_dim=bottleneck.bottleneck_dim,
        rank=lora.rank,
        alpha=float(lora.rank),
        has_controller=False,
    )
    keys = next((list(sources[role].sides[role]) for role in ROLES if kinds[role].startswith("bottleneck")), [])
    pair = AdapterPair(config, keys, {role: _lora_shapes(sources[role], role) for role in ROLES if kinds[role] == "lora"})
    for role, source in sources.items():
        pair.sides[role].load_state_dict(source.sides[role].state_dict())
        scaling = source.config.alpha / source.config.rank if kinds[role] == "lora" else 1.0
        _multiply(pair, role, scaling * (factor if role == "motion" else 1.0))
    return pair


def _require_equal_widths(identity: PairConfig, motion: PairConfig) -> None:
    if identity.bottleneck_dim != motion.bottleneck_dim:
        raise InputError(
            f"The identity side is {identity.bottleneck_dim} wide and the motion side {motion.bottleneck_dim}: combine sides of one width."
        )


def _lora_shapes(pair: AdapterPair, role: Role) -> dict[str, tuple[int, int, int]]:
    return {
        key: (adapter.down.in_features, adapter.up.out_features, adapter.down.out_features) for key, adapter in pair.sides[role].items()
    }


@torch.no_grad()
def _multiply(pair: AdapterPair, role: Role, factor: float) -> None:
    if factor != 1.0:
        for adapter in pair.sides[role].values():
            for parameter in adapter.up.parameters():
                parameter.mul_(factor)


def combine_headers(identity: Mapping[str, object], motion: Mapping[str, object]) -> dict[str, object]:
    """The header of a combined pair: what each header says of the side that was taken from it."""
    return {}
