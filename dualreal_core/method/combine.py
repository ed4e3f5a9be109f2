"""Two pairs into one: the identity side of the first and the motion side of the second, as each was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..errors import InputError
from .pair import PER_SIDE, ROLES, AdapterPair, Role, gate_sizes, scaled_state, shapes_of, split_key
from .prompt_gate import joined_gate


def combine(identity: AdapterPair, motion: AdapterPair) -> AdapterPair:
    """A pair without controller: both sides keep to the share schedule they were trained on, or have half of their pair's scale.

    The latter is the weight that sides trained without one know, and is also taken where two schedules differ.
    Differing scales are folded into the weights, which become float32 on the CPU. Each side keeps the prompt gate of its pair, and
    one without a gate acts whatever the prompt says; gates for two text encoders are dropped.

    Raises:
        InputError: the sides are missing, or were made for different bases or in forms that one file cannot hold.
    """
    sources: dict[Role, AdapterPair] = {"identity": identity, "motion": motion}
    for role, source in sources.items():
        if role not in source.sides:
            raise InputError(f"The {role} input has no {role} side: give a pair that has one.")
    for name in ("family", "dim", "num_blocks"):
        ours, theirs = getattr(identity.config, name), getattr(motion.config, name)
        if ours != theirs:
            raise InputError(f"The identity was made for a base with {name} {ours}, the motion for {theirs}: use sides of one base.")
    if identity.config.experts != motion.config.experts:
        both, one = sources if identity.config.experts else reversed(sources)
        raise InputError(
            f"The {both} pair is for a model of two experts (Wan 2.2), the {one} pair for one DiT: use two pairs of one kind. Two LoRAs "
            "or pairs of one expert each become a pair of both by Load LoRAs (two experts), in Python by join_experts."
        )
    boundaries = {source.config.boundary for source in sources.values()} - {None}
    if len(boundaries) > 1:
        ours, theirs = identity.config.boundary, motion.config.boundary
        raise InputError(
            f"The identity was made for experts that switch at a noise level (sigma) of {ours:g}, the motion at {theirs:g}, as those for "
            "text and those for image to video do: use sides of one model."
        )
    kinds = {role: source.config.kind(role) for role, source in sources.items()}
    loras = [role for role in ROLES if kinds[role] == "lora"]
    bottlenecks = {role: source for role, source in sources.items() if role not in loras}
    scale = common_scale([(source, role) for role, source in sources.items()])
    gate = joined_gate(identity.gate, motion.gate)
    of_motion = [f"motion_{name}" for name in ("kind", "condition_dim", *PER_SIDE)]
    config = replace(
        identity.config,
        **{name: getattr(motion.config, name) for name in of_motion},
        target_layers=common_target_layers([sources[role] for role in loras]),
        boundary=boundaries.pop() if boundaries else None,
        **gate_sizes(gate),
        scale=scale,
        has_controller=False,
        share_schedule=identity.config.share_schedule if identity.config.share_schedule == motion.config.share_schedule else (),
    )
    with torch.device("meta"):
        pair = AdapterPair(config, _sites(bottlenecks), {role: shapes_of(sources[role], role) for role in loras})
    for role, source in sources.items():
        pair.sides[role].load_state_dict(scaled_state(source, role, source.config.scale / scale), assign=True)
    pair.gate = gate
    return pair


def combine_headers(identity: Mapping[str, object], motion: Mapping[str, object]) -> dict[str, object]:
    """The header of a combined pair: what each header says of the side that was taken from it, and both consent notes."""
    headers: dict[Role, Mapping[str, object]] = {"identity": identity, "motion": motion}
    bases = {role: _of_role(header.get("base"), role) for role, header in headers.items()}
    notes = [line for header in headers.values() for line in str(header.get("consent") or "").splitlines() if line.strip()]
    return _known(
        {
            "base": bases["identity"] if bases["identity"] == bases["motion"] else _known(bases),
            "prompts": _known({**_entries(headers, "prompts"), "trigger": (identity.get("prompts") or {}).get("trigger")}),
            "training": _known({role: _of_role(header.get("training"), role) for role, header in headers.items()}),
            "datasets": _known(_entries(headers, "datasets")),
            "prompt_gate": _gate_words(headers),
            "consent": "\n".join(dict.fromkeys(notes)),
            "sources": _known({role: _source(header, role) for role, header in headers.items()}),
        }
    )


def common_target_layers(loras: Sequence[AdapterPair]) -> tuple[str, ...]:
    """Layers that any of the LoRA sides names; none where they all act on every layer of the family."""
    if all(not pair.config.target_layers for pair in loras):
        return ()
    return tuple(dict.fromkeys(layer for pair in loras for layer in pair.config.target_layers or pair.family.linear_layers()))


def _sites(bottlenecks: Mapping[Role, AdapterPair]) -> dict[Role, list[str]]:
    """Keys of the sides that are bottlenecks.

    Raises:
        InputError: both are, and differ in where they act in a block.
    """
    sites = {role: list(source.sides[role]) for role, source in bottlenecks.items()}
    in_blocks: dict[int, list[set[str]]] = {}
    for keys in sites.values():
        own: dict[int, set[str]] = {}
        for block, site in map(split_key, keys):
            own.setdefault(block, set()).add(site)
        for block, names in own.items():
            in_blocks.setdefault(block, []).append(names)
    if any(names != both[0] for both in in_blocks.values() for names in both):
        raise InputError("The identity and the motion act at different places of the base: use sides that were made for one base.")
    return sites


def common_scale(sides: Sequence[tuple[AdapterPair, Role]]) -> float:
    """The scale of sides with an inner skip, which cannot be folded; else that of the first side.

    Raises:
        InputError: two of these have differing scales.
    """
    fixed = {source.config.scale for source, role in sides if source.config.kind(role) == "bottleneck-skip"}
    if len(fixed) > 1:
        raise InputError(f"Both pairs have sides with an inner skip, at scales {min(fixed):g} and {max(fixed):g}: use pairs of one scale.")
    return fixed.pop() if fixed else sides[0][0].config.scale


def _entries(headers: Mapping[Role, Mapping[str, object]], field: str) -> dict[str, object]:
    return {role: (header.get(field) or {}).get(role) for role, header in headers.items()}


def _gate_words(headers: Mapping[Role, Mapping[str, object]]) -> dict[str, object]:
    """What each prompt gate goes by on the side that was taken from its pair."""
    gates = {role: header.get("prompt_gate") or {} for role, header in headers.items()}
    by_role = {name: _known({role: (gate.get(name) or {}).get(role) for role, gate in gates.items()}) for name in ("accuracy", "sides")}
    return _known({**{role: gate.get(role) for role, gate in gates.items()}, **by_role})


def _of_role(value: object, role: Role) -> object:
    """What a header field says of a role: its entry where the field is kept by role, as in headers of combined pairs."""
    return value.get(role) if isinstance(value, Mapping) and any(name in value for name in ROLES) else value


def _source(header: Mapping[str, object], role: Role) -> object:
    return header.get("digest") or header.get("source") or _of_role(header.get("sources"), role)


def _known(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value not in (None, "", {}, [])}
