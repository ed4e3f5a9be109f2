"""What a file of trained weights holds, as far as the file itself records it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import InputError
from ..method.pair import ROLES, AdapterPair, iterate_sides
from . import load_pair
from .lora import adapter_config_of, layer_updates, other_tensors, recorded_alpha

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
    header fields. Of a LoRA: `layers`, each with `rank`, `alpha`, widths and `up_norm`, and `besides`, the forms it holds besides.

    Raises:
        InputError: no such file, damaged, or none of these kinds.
    """
    path = Path(path)
    try:
        pair, header = load_pair(path)
    except InputError:
        layers, besides = _lora_layers(path)
        if not layers:
            raise
        num_parameters = sum(layer["rank"] * (layer["in_dim"] + layer["out_dim"]) for layer in layers)
        counted = {"bytes": path.stat().st_size, "parameters": {"lora": num_parameters}}
        return {"file": path.name, "kind": "lora", **counted, "layers": layers, "besides": besides}
    return {
        "file": path.name,
        "kind": "pair" if header["format_version"] else "reference",
        "bytes": path.stat().st_size,
        "config": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(pair.config).items()},
        "parameters": {
            **{role: _count(pair.role_parameters(role)) for role in ROLES},
            "controller": _count(pair.controller_parameters()),
        },
        "up_norms": _up_norms(pair),
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
    squares = {role: [0.0] * pair.config.num_blocks for role in pair.sides}
    for role, block, _, adapter in iterate_sides(pair):
        squares[role][block] += float(adapter.up.weight.detach().double().square().sum())
    return {role: {"total": math.sqrt(sum(blocks)), "blocks": [math.sqrt(square) for square in blocks]} for role, blocks in squares.items()}


def _lora_layers(path: Path) -> tuple[list[dict[str, object]], list[str]]:
    """Layers of a LoRA file, none where the file is no such, and the forms it holds besides.

    Raises:
        InputError: half of a layer is missing, or an alpha is no number.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
            adapter_config = adapter_config_of(path, file.metadata() or {})
    except (SafetensorError, OSError, ValueError, AttributeError):
        return [], []
    layers = []
    for name, update in sorted(layer_updates(tensors).items()):
        if update.down is None or update.up is None:
            raise InputError(f"{path} has only one of the two matrices of {name}: it is incomplete; use another copy.")
        layers.append(
            {
                "layer": name,
                "rank": update.down.shape[0],
                "alpha": recorded_alpha(path, name, tensors.get(f"{update.name}.alpha"), adapter_config),
                "in_dim": update.down.shape[1],
                "out_dim": update.up.shape[0],
                "up_norm": float(update.up.double().norm()),
            }
        )
    found = {"DoRA"} if adapter_config.get("use_dora") else set()
    for name in other_tensors(tensors):
        found.add(next((form for form, marks in OTHER_FORMS.items() if any(mark in name for mark in marks)), "others"))
    return layers, [form for form in (*OTHER_FORMS, "others") if form in found]


def _pair_rows(description: Description) -> list[tuple[str, str]]:
    config, parameters = description["config"], description["parameters"]
    kind = "DualReal pair" if description["kind"] == "pair" else "checkpoint of the paper's implementation"
    rows = [("kind", kind), ("fits", f"{config['family']}, {config['num_blocks']} blocks of width {config['dim']}")]
    for role in ROLES:
        if config[f"{role}_kind"] == "none":
            rows.append((role, "none"))
            continue
        norms = description["up_norms"][role]
        spread = f"norm of up {norms['total']:.4g} (blocks {min(norms['blocks']):.4g} to {max(norms['blocks']):.4g})"
        state = spread if norms["total"] else "untrained (up is zero)"
        rows.append((role, f"{_adapter(config, role)}; {parameters[role]:,} parameters; {state}"))
    shares = " ".join(f"{share:g}" for share in config["share_schedule"])
    schedule = f", share schedule {shares}" if shares else ""
    groups = f"{config['num_groups']} groups, scale {config['scale']:g}, learned range {config['learned_range']:g}{schedule}"
    rows.append(("controller", f"{groups}; {parameters['controller']:,} parameters" if parameters["controller"] else f"none{schedule}"))
    for name in HEADER_FIELDS:
        rows += _field_rows(name, description[name])
    return rows


def _adapter(config: dict[str, object], role: str) -> str:
    if config[f"{role}_kind"] == "lora":
        layers = ", ".join(config["target_layers"]) or "all layers of the family"
        return f"lora, rank {config[f'{role}_rank']}, alpha {config[f'{role}_alpha']:g}, {layers}"
    condition = config[f"{role}_condition_dim"]
    kind = f"{config[f'{role}_kind']}, width {config[f'{role}_bottleneck_dim']}"
    return kind if condition is None else f"{kind}, conditioned on {condition} numbers"


def _field_rows(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
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
    layers = description["layers"]
    besides = f" with {' and '.join(description['besides'])} (not listed)" if description["besides"] else ""
    rows = [("kind", f"LoRA{besides}, {len(layers)} layers, {description['parameters']['lora']:,} parameters")]
    width = max(len(layer["layer"]) for layer in layers)
    for layer in layers:
        alpha = UNKNOWN if layer["alpha"] is None else f"{layer['alpha']:g}"
        sizes = f"{layer['in_dim']} to {layer['out_dim']}"
        rows.append(
            ("layer", f"{layer['layer']:<{width}}  rank {layer['rank']}  alpha {alpha}  {sizes}  norm of up {layer['up_norm']:.4g}")
        )
    return rows
