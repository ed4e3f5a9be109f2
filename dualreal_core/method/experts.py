"""Pairs for models whose denoising is shared by two DiTs, the experts: one of them as a pair of its own, and two pairs as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..errors import InputError
from ..families.expert_names import EXPERTS
from .combine import common_scale, common_target_layers
from .pair import ROLES, AdapterPair, Role, gate_sizes, moved_key, scaled_state, shapes_of
from .prompt_gate import PromptGate

SAME_IN_BOTH = {
    "bottleneck": ("bottleneck_dim", "condition_dim"),
    "bottleneck-skip": ("bottleneck_dim", "condition_dim"),
    "lora": (),
}
"""What the sides of one role must have in common, by kind; a pair keeps it once."""
OF_CONTROLLER = ("time_dim", "num_groups", "learned_range", "share_schedule", "controller_dim")


def is_expert_pair(pair: AdapterPair) -> bool:
    """Whether a pair is for several experts: each of them then takes its part, by `expert_of`."""
    return bool(pair.config.experts)


def expert_of(pair: AdapterPair, index: int) -> AdapterPair:
    """The part of a pair that acts in one expert, as a pair for one DiT: the same adapters, StageBlender and gate.

    Of the StageBlender it takes its own groups. A side that this expert lacks is of kind 'none'. It is a view: what is trained or
    moved in it is so in the pair.

    Raises:
        ValueError: there is no such expert.
    """
    config = pair.config
    if index not in range(len(config.experts)):
        raise ValueError(f"There is no expert {index}: the pair has {len(config.experts)}.")
    first = index * config.num_blocks
    blocks = range(first, first + config.num_blocks)
    sides = {
        role: {moved_key(key, -first): adapter for key, adapter in side.items() if int(key.partition("-")[0]) in blocks}
        for role, side in pair.sides.items()
    }
    kinds = {f"{role}_kind": config.kind(role) if sides.get(role) else "none" for role in ROLES}
    own = replace(config, experts=(), boundary=None, **kinds)
    with torch.device("meta"):
        view = AdapterPair(own, lora_shapes={role: {} for role in ROLES})
    for role, side in view.sides.items():
        side.update(sides[role])
    view.controller, view.gate, view.first_group = pair.controller, pair.gate, index * config.num_groups
    return view


def experts_of(pair: AdapterPair) -> list[AdapterPair]:
    """The part of each expert, the noisiest first; of a pair for one DiT the pair itself."""
    return [expert_of(pair, index) for index in range(len(pair.config.experts))] or [pair]


def join_experts(high: AdapterPair, low: AdapterPair, boundary: float | None = None) -> AdapterPair:
    """A pair for two experts out of a pair for each, in float32 on the CPU; a side that one of them lacks is not there for it.

    Differing scales and strengths are folded into the weights. Two StageBlenders become one where they differ in their outputs alone,
    as those of one pair do; else there is none, and the shares follow the schedule that both pairs have, or are even. A prompt gate is
    kept where both have the same, or only one has sides; else there is none, and the sides act whatever the prompt says.

    Args:
        high, low: for the expert of high and of low noise; may be the same.
        boundary: the sigma at which they switch.

    Raises:
        InputError: the pairs are of different bases, or hold a side in forms that one file cannot hold.
    """
    sources = (high, low)
    for source in sources:
        if source.config.experts:
            raise InputError("One of the two pairs is for two experts already: give two pairs for one DiT each.")
    for name in ("family", "dim", "num_blocks"):
        ours, theirs = (getattr(source.config, name) for source in sources)
        if ours != theirs:
            raise InputError(f"The high-noise pair was made for a base with {name} {ours}, the low-noise pair for {theirs}: use one model.")
    scale = common_scale([(source, role) for source in sources for role in ROLES])
    of_sides: dict[str, object] = {}
    for role in ROLES:
        of_sides |= _side_fields(sources, role)
    controller = _joined_controller(sources)
    gate = _common_gate(sources)
    schedules = {source.config.share_schedule for source in sources}
    config = replace(
        high.config,
        **of_sides,
        target_layers=common_target_layers([one for one in sources if "lora" in map(one.config.kind, ROLES)]),
        experts=EXPERTS,
        boundary=boundary,
        **gate_sizes(gate),
        scale=scale,
        has_controller=bool(controller),
        share_schedule=schedules.pop() if len(schedules) == 1 else (),
    )
    keys: dict[Role, list[str]] = {role: [] for role in ROLES}
    shapes: dict[Role, dict[str, tuple[int, int, int]]] = {role: {} for role in ROLES}
    state = controller
    for index, source in enumerate(sources):
        for role in source.sides:
            moved = {key: moved_key(key, index * config.num_blocks) for key in source.sides[role]}
            keys[role] += moved.values()
            if config.kind(role) == "lora":
                shapes[role] |= {moved[key]: shape for key, shape in shapes_of(source, role).items()}
            scaling = source.config.scaling(role) / config.scaling(role) if config.kind(role) == "lora" else 1.0
            for name, tensor in scaled_state(source, role, source.config.scale / scale, scaling).items():
                key, _, rest = name.partition(".")
                state[f"sides.{role}.{moved[key]}.{rest}"] = tensor
    if gate is not None:
        state |= {f"gate.{name}": tensor.detach().to("cpu", copy=True) for name, tensor in gate.state_dict().items()}
    with torch.device("meta"):
        pair = AdapterPair(config, keys, shapes)
    pair.load_state_dict(state, assign=True)
    return pair


def base_of_expert(recorded: object, expert: str) -> object:
    """What a header's `base` records of one expert: its own entry under the expert's name, or what is recorded of the whole."""
    return recorded.get(expert, recorded) if isinstance(recorded, Mapping) else recorded


def _side_fields(sources: Sequence[AdapterPair], role: Role) -> dict[str, object]:
    """The fields of a `PairConfig` about a role, of both experts.

    Raises:
        InputError: the two are of different kinds or sizes.
    """
    configs = [source.config for source in sources if role in source.sides]
    if not configs:
        return {f"{role}_kind": "none"}
    for name in ("kind", *SAME_IN_BOTH[configs[0].kind(role)]):
        values = [getattr(config, name)(role) for config in configs]
        if values[0] != values[-1]:
            raise InputError(
                f"The {role} of the high-noise pair has {name} {values[0]}, that of the low-noise pair {values[-1]}: one pair holds sides "
                "of one form. Use two that were trained alike."
            )
    first, rank = configs[0], max(config.rank(role) for config in configs)
    kept = {name: getattr(first, f"{role}_{name}") for name in ("kind", "bottleneck_dim", "condition_dim")}
    return {f"{role}_{name}": value for name, value in {**kept, "rank": rank, "alpha": first.scaling(role) * rank}.items()}


def _joined_controller(sources: Sequence[AdapterPair]) -> dict[str, torch.Tensor]:
    """The state of one StageBlender for both, by names in the pair; empty where they are not one but for their outputs."""
    if any(source.controller is None for source in sources) or any(
        len({getattr(source.config, name) for source in sources}) > 1 for name in OF_CONTROLLER
    ):
        return {}
    states = [{name: tensor.detach().cpu() for name, tensor in source.controller.state_dict().items()} for source in sources]
    own = [slice(source.first_group, source.first_group + source.config.num_groups) for source in sources]
    joined = {
        name: torch.cat([state[name][groups] for state, groups in zip(states, own, strict=True)]) if name.startswith("out.") else tensor
        for name, tensor in states[0].items()
    }
    is_one = all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items() if not name.startswith("out."))
    return {f"controller.{name}": tensor.clone() for name, tensor in joined.items()} if is_one else {}


def _common_gate(sources: Sequence[AdapterPair]) -> PromptGate | None:
    """The gate of the pairs that have sides; None where one has none, or they are different."""
    first, *others = [source.gate for source in sources if any(source.sides.values())] or [None]
    return first if all(_is_same_gate(first, other) for other in others) else None


def _is_same_gate(left: PromptGate | None, right: PromptGate | None) -> bool:
    if left is None or right is None:
        return left is right
    theirs = right.state_dict()
    return all(torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in left.state_dict().items())
