"""What a file of trained weights holds, as far as the file itself records it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import InputError
from ..method.experts import experts_of, is_expert_pair
from ..method.pair import ROLES, AdapterPair, iterate_sides
from . import load_pair
from .lora import layers_of, other_tensors
from .lora_strength import LoraStrength

HEADER_FIELDS = ("base", "prompts", "training", "datasets", "consent", "provenance")
UNKNOWN = "-"
OTHER_FORMS = {
    "DoRA": (".dora_scale", "lora_magnitude_vector"),
    "LoKr": (".lokr_",),
    "LoHa": (".hada_",),
    "full differences": (".diff",),
    "biases": (".bias",),
}
"""What files hold besides LoRA layers, by a part of their tensors' names."""
NUM_HASHES_SHOWN, HASH_LENGTH = 3, 12

Description = dict[str, object]


def describe(path: Path) -> Description:
    """What a pair file, a checkpoint of the reference or a LoRA file holds; JSON-able, None where nothing is recorded.

    Fields of every file: `file`, `kind` ('pair', 'reference', 'lora'), `bytes`, `parameters`. Of a pair and a
    reference: `config`, `up_norms` per role (`total`, and `blocks`, one number each; all zero: untrained), and the
    header fields; of a pair for several experts also `experts`, the norms of each with the sides that it has. Of a LoRA: `layers`,
    each with `rank`, `alpha`, `scaling` (the factor on `up @ down`), widths and `up_norm`; `empty`, the names of layers of rank 0,
    which do nothing; `besides`, the forms it holds besides.

    Raises:
        InputError: no such file, damaged, or none of these kinds.
    """
    path = Path(path)
    try:
        pair, header = load_pair(path)
    except InputError:
        lora = _describe_lora(path)
        if lora is None:
            raise
        return lora
    return {
        "file": path.name,
        "kind": "pair" if header["format_version"] else "reference",
        "bytes": path.stat().st_size,
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in pair.config.recorded().items()},
        "parameters": {
            **{role: _count(pair.role_parameters(role)) for role in ROLES},
            "controller": _count(pair.controller_parameters()),
        },
        "up_norms": _up_norms(pair),
        **({"experts": dict(zip(pair.config.experts, map(_up_norms, experts_of(pair)), strict=True))} if is_expert_pair(pair) else {}),
        **{name: header.get(name) for name in HEADER_FIELDS},
    }


def lines(description: Description) -> list[str]:
    """A description for people, names and values in two columns."""
    rows = [("file", f"{description['file']} ({description['bytes'] / 1e6:,.2f} MB)")]
    rows += _lora_rows(description) if description["kind"] == "lora" else _pair_rows(description)
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{width}}{value}" for name, value in rows]


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _up_norms(pair: AdapterPair) -> dict[str, dict[str, object]]:
    squares = {role: [0.0] * pair.config.total_blocks for role in pair.sides}
    for role, block, _, adapter in iterate_sides(pair):
        squares[role][block] += float(adapter.up.weight.detach().double().square().sum())
    return {role: {"total": math.sqrt(sum(blocks)), "blocks": [math.sqrt(square) for square in blocks]} for role, blocks in squares.items()}


def _describe_lora(path: Path) -> Description | None:
    """What a LoRA file holds, None where the file is no such.

    Raises:
        InputError: half of a layer is missing, all layers are empty, or what is said of their strength is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    named = layers_of(tensors)
    if not named:
        return None
    strength = LoraStrength.of(path, metadata)
    layers, empty = [], []
    for layer in sorted(named.values(), key=lambda layer: layer.short_name):
        if layer.down is None or layer.up is None:
            raise InputError(f"{path} has only one of the two matrices of {layer.short_name}: it is incomplete; use another copy.")
        if layer.is_empty:
            empty.append(layer.short_name)
            continue
        if min(layer.down.ndim, layer.up.ndim) < 2 or layer.down.shape[0] != layer.up.shape[1]:
            sizes = f"{list(layer.down.shape)} and {list(layer.up.shape)}"
            raise InputError(f"{path} has matrices of sizes {sizes} for {layer.short_name}, which do not fit: use another copy.")
        if not all(tensor.float().isfinite().all() for tensor in (layer.down, layer.up)):
            raise InputError(f"{path} holds values that are no numbers in {layer.short_name}: its training failed, or it is damaged.")
        layers.append(
            {
                "layer": layer.short_name,
                "rank": layer.down.shape[0],
                "alpha": strength.alpha(layer),
                "scaling": strength.scaling(layer),
                "in_dim": layer.down.shape[1],
                "out_dim": layer.up.shape[0],
                "up_norm": float(layer.up.double().norm()),
            }
        )
    if not layers:
        raise InputError(f"{path} is a LoRA whose {len(empty)} layers all have rank 0, so that it changes nothing: use another file.")
    found = {"DoRA"} if strength.is_dora else set()
    for name in other_tensors(tensors):
        found.add(next((form for form, marks in OTHER_FORMS.items() if any(mark in name for mark in marks)), "others"))
    return {
        "file": path.name,
        "kind": "lora",
        "bytes": path.stat().st_size,
        "parameters": {"lora": sum(layer["rank"] * (layer["in_dim"] + layer["out_dim"]) for layer in layers)},
        "layers": layers,
        "empty": empty,
        "besides": [form for form in (*OTHER_FORMS, "others") if form in found],
    }


def _pair_rows(description: Description) -> list[tuple[str, str]]:
    config, parameters = description["config"], description["parameters"]
    kind = "DualReal pair" if description["kind"] == "pair" else "checkpoint of the paper's implementation"
    fits = f"{config['family']}, {config['num_blocks']} blocks of width {config['dim']}"
    experts = description.get("experts") or {}
    if experts:
        switch = "" if config["boundary"] is None else f", which switch at sigma {config['boundary']:g}"
        fits += f" in each of {len(experts)} experts ({', '.join(experts)}){switch}"
    rows = [("kind", kind), ("fits", fits)]
    for role in ROLES:
        if config[f"{role}_kind"] == "none":
            rows.append((role, "none"))
            continue
        own = f"{_adapter(config, role)}; {parameters[role]:,} parameters"
        rows.append((role, own if experts else f"{own}; {_spread(description['up_norms'][role])}"))
        rows += [(f"{role} {expert}", _spread(norms[role]) if role in norms else "none") for expert, norms in experts.items()]
    shares = " ".join(f"{share:g}" for share in config["share_schedule"])
    schedule = f", share schedule {shares}" if shares else ""
    each = " in each expert" if experts else ""
    groups = f"{config['num_groups']} groups{each}, scale {config['scale']:g}, learned range {config['learned_range']:g}{schedule}"
    rows.append(("controller", f"{groups}; {parameters['controller']:,} parameters" if parameters["controller"] else f"none{schedule}"))
    for name in HEADER_FIELDS:
        rows += _field_rows(name, description[name])
    return rows


def _spread(norms: dict[str, object]) -> str:
    total, blocks = norms["total"], norms["blocks"]
    return f"norm of up {total:.4g} (blocks {min(blocks):.4g} to {max(blocks):.4g})" if total else "untrained (up is zero)"


def _adapter(config: dict[str, object], role: str) -> str:
    if config[f"{role}_kind"] == "lora":
        layers = ", ".join(config["target_layers"]) or "all layers of the family"
        return f"lora, rank {config[f'{role}_rank']}, alpha {config[f'{role}_alpha']:g}, {layers}"
    condition = config[f"{role}_condition_dim"]
    kind = f"{config[f'{role}_kind']}, width {config[f'{role}_bottleneck_dim']}"
    return kind if condition is None else f"{kind}, conditioned on {condition} numbers"


def _field_rows(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        if name == "base" and isinstance(value.get("signature"), dict):  # hundreds of numbers
            value = {**value, "signature": f"recorded ({len(value['signature'])} biases)"}
        return [(f"{name} {key}", _hashes(part) if name == "datasets" else _text(part)) for key, part in value.items()]
    return [(name, _text(value))]


def _text(value: object) -> str:
    if value is None or value == "" or value == {} or value == []:
        return UNKNOWN
    if isinstance(value, str):
        return " ".join(value.split())
    return json.dumps(value, ensure_ascii=False)


def _hashes(value: object) -> str:
    if not isinstance(value, list) or not value:
        return _text(value)
    shown = ", ".join(str(item)[:HASH_LENGTH] for item in value[:NUM_HASHES_SHOWN])
    rest = ", ..." if len(value) > NUM_HASHES_SHOWN else ""
    return f"{len(value)} {'file' if len(value) == 1 else 'files'} (sha256 {shown}{rest})"


def _lora_rows(description: Description) -> list[tuple[str, str]]:
    layers, empty = description["layers"], description["empty"]
    besides = f" with {' and '.join(description['besides'])} (not listed)" if description["besides"] else ""
    rows = [("kind", f"LoRA{besides}, {len(layers)} layers, {description['parameters']['lora']:,} parameters")]
    width = max(len(layer["layer"]) for layer in layers)
    for layer in layers:
        alpha = UNKNOWN if layer["alpha"] is None else f"{layer['alpha']:g}"
        strength = f"rank {layer['rank']}  alpha {alpha}  factor {layer['scaling']:.4g}"
        sizes = f"{layer['in_dim']} to {layer['out_dim']}"
        rows.append(("layer", f"{layer['layer']:<{width}}  {strength}  {sizes}  norm of up {layer['up_norm']:.4g}"))
    return rows + [("empty", f"{name}: rank 0, does nothing") for name in empty]
