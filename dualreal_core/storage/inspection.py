"""What a file of trained weights holds, as far as the file itself records it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from torch import nn

from ..errors import InputError
from ..method.experts import experts_of, is_expert_pair
from ..method.layer_forms import FormAdapter, FormSum
from ..method.pair import ROLES, AdapterPair, iterate_sides
from . import load_pair
from .lora_file import triggers_of
from .lora_file.here import BadLayer, Here, NeedsWeight
from .lora_file.keys import FileLayer, layers_of
from .lora_file.kinds import UNKNOWN as UNKNOWN_METHODS
from .lora_file.kinds import forms_of
from .lora_file.models import recognise
from .lora_file.reading import LoraTensors, read_tensors
from .lora_file.resolve import is_foreign
from .lora_file.settings import check_settings
from .lora_file.side import checked_layers
from .lora_strength import LoraStrength

HEADER_FIELDS = ("base", "prompts", "training", "datasets", "consent", "provenance")
UNKNOWN = "-"
FORM_TITLES = {"low_rank": "LoRA", "kronecker": "LoKr", "hadamard": "LoHa", "difference": "full difference", "offset": "bias"}
"""By the name of a form, what people call it; the others are called by their names."""
NUM_HASHES_SHOWN, HASH_LENGTH = 3, 12

Description = dict[str, object]


def describe(path: Path) -> Description:
    """What a pair file, a checkpoint of the reference or a LoRA file holds; JSON-able, None where nothing is recorded.

    Fields of every file: `file`, `kind` ('pair', 'reference', 'lora'), `bytes`, `parameters`. Of a pair and a reference: `config`,
    `up_norms` per role (`total`, and `blocks`, one number each; all zero: untrained), and the header fields; `forms`, per role the number
    of layers by form where they are no plain LoRA; of a pair for several experts also `experts`, the norms of each with the sides that it
    has; `parameters` name a `gate` where there is a prompt gate. Of a LoRA, of any kind: `kinds`, the number of layers by the kind of
    their update; `model`, for which it seems to be made; `triggers`; `layers`, each with its `kinds`, `parameters`, `norm` (of the change
    of the weight; None where it depends on the model's) and, if low-rank, `rank`, `alpha`, `scaling` (the factor on `up @ down`), widths
    and `up_norm`; `empty`, the names of layers of rank 0, which do nothing; `text_encoder`, the number of its tensors; `broken`, the
    names of layers with values that are no numbers; `refused`, why it can act on no model here, None where nothing is known against it.

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
            **({"gate": _count(pair.gate_parameters())} if pair.gate is not None else {}),
        },
        "up_norms": _up_norms(pair),
        "forms": _forms(pair),
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
        squares[role][block] += _square(adapter)
    return {role: {"total": math.sqrt(sum(blocks)), "blocks": [math.sqrt(square) for square in blocks]} for role, blocks in squares.items()}


def _forms(pair: AdapterPair) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for role, _, _, adapter in iterate_sides(pair):
        if isinstance(adapter, FormAdapter):
            found.setdefault(role, Counter()).update({FORM_TITLES.get(form.name, form.name) for form in adapter.total.parts.values()})
    return {role: dict(counts.most_common()) for role, counts in found.items()}


def _square(adapter: nn.Module) -> float:
    """Of an adapter's outputs: of what `up` holds, or of all weights of one of another form."""
    weights = adapter.total.parameters() if isinstance(adapter, FormAdapter) else [adapter.up.weight]
    return sum(float(weight.detach().double().square().sum()) for weight in weights)


def _describe_lora(path: Path) -> Description | None:
    """What a LoRA file holds, None where the file is no such.

    Raises:
        InputError: half of a layer is missing, all layers are empty, or what is said of their strength is damaged.
    """
    try:
        file = read_tensors(path)
        named = layers_of(file.tensors)
    except (InputError, ValueError):
        return None
    named = {name: layer for name, layer in named.items() if not set(layer.parts) <= {"weight", "bias", "value", "alpha"}}
    unknown = sorted({title for key in file.tensors for mark, title in UNKNOWN_METHODS.items() if mark in key})
    if not named and not unknown:
        return None
    strength = LoraStrength.of(file.path, file.metadata)
    layers, kinds = [], dict.fromkeys(unknown, 0)
    empty = [layer.short_name for layer in named.values() if layer.is_empty]
    for layer in sorted((one for one in named.values() if not one.is_empty), key=lambda one: one.short_name):
        if is_foreign(layer.name) or any(mark in part for part in layer.parts for mark in UNKNOWN_METHODS):
            continue
        found = _describe_layer(layer, strength, path)
        layers.append(found)
        for kind in found["kinds"]:
            kinds[kind] = kinds.get(kind, 0) + 1
    if not layers and empty:
        raise InputError(f"{path} is a LoRA whose {len(empty)} layers all have rank 0, so that it changes nothing: use another file.")
    if strength.is_dora and not any(kind.startswith("DoRA") for kind in kinds):
        kinds["DoRA"] = 0
    return {
        "file": path.name,
        "kind": "lora",
        "bytes": file.path.stat().st_size,
        "parameters": {"lora": sum(layer["parameters"] for layer in layers)},
        "kinds": kinds,
        "model": recognise(named.values()),
        "triggers": list(triggers_of(file.metadata)),
        "layers": layers,
        "empty": sorted(empty),
        "text_encoder": sum(len(layer.parts) for layer in named.values() if is_foreign(layer.name)),
        "broken": [layer["layer"] for layer in layers if layer["norm"] is None and layer["is_broken"]],
        "refused": _refusal(file, strength),
    }


def _refusal(file: LoraTensors, strength: LoraStrength) -> str | None:
    """Why the file acts on no model here, as far as it tells itself."""
    try:
        checked_layers(file.path.name, file.tensors)
        check_settings(file.path.name, strength.adapter_config)
    except InputError as error:
        return str(error)
    return None


def _describe_layer(layer: FileLayer, strength: LoraStrength, path: Path) -> Description:
    """One layer; `norm` is None where it depends on the model's weights, or where numbers of it are none (`is_broken`)."""
    is_broken = not all(tensor.float().isfinite().all() for name, tensor in layer.parts.items() if name != "alpha")
    parts = {name: tensor for name, tensor in layer.parts.items() if name not in ("dora_scale", "alpha")}
    norm, sizes = None, {}
    without_magnitudes = {name: tensor for name, tensor in layer.parts.items() if name != "dora_scale"}
    try:
        here = Here(replace(layer, parts=without_magnitudes), strength, None)
        forms, kinds = forms_of(here)
        square = None if is_broken else FormSum.of(forms).squared_norm(None)
        norm = None if square is None or "dora_scale" in layer.parts else _known(math.sqrt(square))
    except NeedsWeight:
        kinds = ["full weights"]
    except BadLayer as error:
        raise InputError(f"{path} {str(error).replace(layer.name, layer.short_name)}.") from error
    if "dora_scale" in layer.parts:
        kinds = [f"DoRA{'' if kind == 'LoRA' else f' of {kind}'}" for kind in kinds or ["LoRA"]]
    if "down" in parts:
        down, up = parts["down"], parts["up"]
        here.left = dict(layer.parts)
        sizes = {
            "rank": down.shape[0],
            "alpha": strength.shown_alpha(layer),
            "scaling": _known(here.scaling(down.shape[0])),
            "in_dim": down.shape[1],
            "out_dim": up.shape[0],
            "up_norm": None if is_broken else _known(float(up.double().norm())),
        }
    return {
        "layer": layer.short_name,
        "kinds": kinds,
        "parameters": sum(tensor.numel() for name, tensor in layer.parts.items() if name != "alpha"),
        "norm": norm,
        "is_broken": is_broken,
        **sizes,
    }


def _known(number: float) -> float | None:
    """None for what numbers of damaged files overflow to, which JSON has no word for."""
    return number if math.isfinite(number) else None


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
        forms = ", ".join(f"{form} ({number} layer{'s' * (number > 1)})" for form, number in description["forms"].get(role, {}).items())
        own = f"{forms or _adapter(config, role)}; {parameters[role]:,} parameters"
        spread = _spread(description["up_norms"][role], "all weights" if forms else "up")
        rows.append((role, own if experts else f"{own}; {spread}"))
        rows += [(f"{role} {expert}", _spread(norms[role]) if role in norms else "none") for expert, norms in experts.items()]
    shares = " ".join(f"{share:g}" for share in config["share_schedule"])
    schedule = f"share schedule {shares}" if shares else ""
    each = " in each expert" if experts else ""
    bound = f"moves shares by {config['learned_range']:g} at most" if "learned_range" in config else "free"
    if parameters["controller"]:
        groups = f"{config['num_groups']} groups{each}, scale {config['scale']:g}, {bound}"
        rows.append(("controller", f"{', '.join(filter(None, (groups, schedule)))}; {parameters['controller']:,} parameters"))
    else:
        rows.append(("controller", f"none: weights follow the {schedule}, scale {config['scale']:g}" if schedule else "none"))
    if "gate" in parameters:
        looks_for = f"text of width {config['text_dim']}, {config['gate_features']} features; {parameters['gate']:,} parameters"
        rows.append(("prompt gate", looks_for))
    for name in HEADER_FIELDS:
        rows += _field_rows(name, description[name])
    return rows


def _spread(norms: dict[str, object], of: str = "up") -> str:
    total, blocks = norms["total"], norms["blocks"]
    return f"norm of {of} {total:.4g} (blocks {min(blocks):.4g} to {max(blocks):.4g})" if total else f"untrained ({of} is zero)"


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
    kinds = [f"{kind} ({number} layers)" if number else kind for kind, number in description["kinds"].items()]
    rows = [("kind", f"LoRA file: {', '.join(kinds)}; {len(layers)} layers, {description['parameters']['lora']:,} parameters")]
    rows.append(("made for", description["model"] or UNKNOWN))
    if description["triggers"]:
        rows.append(("triggers", ", ".join(description["triggers"])))
    width = max((len(layer["layer"]) for layer in layers), default=0)
    rows += [("layer", f"{layer['layer']:<{width}}  {_lora_layer(layer)}") for layer in layers]
    if description["text_encoder"]:
        rows.append(("text encoder", f"{description['text_encoder']} tensors"))
    rows += [("refused", description["refused"])] if description["refused"] else []
    return rows + [("empty", f"{name}: rank 0, does nothing") for name in empty]


def _lora_layer(layer: Description) -> str:
    norm = "holds NaN or infinite values" if layer["is_broken"] else UNKNOWN if layer["norm"] is None else f"{layer['norm']:.4g}"
    kinds = "" if layer["kinds"] == ["LoRA"] else f"{', '.join(layer['kinds'])}  "
    if "rank" not in layer:
        return f"{kinds}{layer['parameters']:,} parameters  norm {norm}"
    alpha = UNKNOWN if layer["alpha"] is None else f"{layer['alpha']:g}"
    factor = UNKNOWN if layer["scaling"] is None else f"{layer['scaling']:.4g}"
    strength = f"rank {layer['rank']}  alpha {alpha}  factor {factor}"
    return f"{kinds}{strength}  {layer['in_dim']} to {layer['out_dim']}  norm {norm}"
