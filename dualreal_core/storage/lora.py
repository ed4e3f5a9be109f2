"""LoRA files in the naming of peft and diffusers: `transformer.<path>.lora_A.weight` and `lora_B.weight`."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from ..errors import InputError
from ..files.atomic import atomic_path
from ..method.pair import AdapterPair, Role, split_key

_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.")
_KEY = re.compile(r"(?P<layer>.+)\.(?P<part>lora_A|lora_B|lora_down|lora_up)(?:\.default)?\.weight")
METADATA_KEY = "lora_adapter_metadata"


def write_lora(path: Path, pair: AdapterPair, role: Role) -> None:
    """Writes one LoRA side so that `load_lora_weights` of diffusers takes it.

    Alpha is folded into `lora_B`, so that readers that ignore the metadata compute the same.

    Raises:
        InputError: the side is no LoRA, the family has blocks of several kinds, or the file cannot be written.
    """
    if pair.config.kind(role) != "lora":
        kind = pair.config.kind(role)
        raise InputError(f"The {role} side is of kind {kind!r}, which has no LoRA form: train it with kind 'lora' to export it.")
    if len(pair.family.block_lists) > 1:
        raise InputError(f"A LoRA of {pair.family.name}, which has blocks of several kinds, has no peft form: save it as a pair.")
    tensors, layers, ranks = {}, set(), {}
    for key, adapter in pair.sides[role].items():
        block, layer = split_key(key)
        layers.add(layer)
        name = f"{pair.family.block_lists[0].path}.{block}.{layer}"
        ranks[name] = adapter.down.out_features  # those of a LoRA out of a file differ by layer
        tensors[f"transformer.{name}.lora_A.weight"] = adapter.down.weight.detach().cpu().contiguous()
        tensors[f"transformer.{name}.lora_B.weight"] = (adapter.up.weight.detach() * adapter.scaling).cpu().contiguous()
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != common}
    adapter_config = {
        "transformer.r": common,
        "transformer.lora_alpha": common,
        "transformer.rank_pattern": others,
        "transformer.alpha_pattern": others,
        "transformer.target_modules": sorted(layers),
    }
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, {METADATA_KEY: json.dumps(adapter_config, sort_keys=True), "format": "pt"}))


@dataclass
class _Update:
    """Tensors of one layer, and its name in the file."""

    name: str
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None


def layer_updates(tensors: dict[str, torch.Tensor]) -> dict[str, _Update]:
    """The matrices of each layer of a LoRA file, by the layer without its prefix."""
    found: dict[str, _Update] = {}
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        if match is None:
            continue
        layer = match["layer"]
        for prefix in _PREFIXES:
            layer = layer.removeprefix(prefix)
        update = found.setdefault(layer, _Update(match["layer"]))
        setattr(update, "down" if match["part"] in {"lora_A", "lora_down"} else "up", tensor.float())
    return found


def other_tensors(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Names of what is no part of a plain LoRA."""
    return [name for name in tensors if not _KEY.fullmatch(name) and not name.endswith(".alpha")]


def adapter_config_of(path: Path, metadata: dict[str, str]) -> dict[str, object]:
    """Fields of peft's `LoraConfig`, from the file's metadata or, in a folder peft wrote, from the file beside it.

    Raises:
        ValueError: they are no JSON object.
    """
    beside, prefix = path.with_name("adapter_config.json"), "transformer."
    text = metadata.get(METADATA_KEY, "{}")
    if METADATA_KEY not in metadata and path.name == "adapter_model.safetensors" and beside.is_file():
        text, prefix = beside.read_text(encoding="utf-8"), ""
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("the adapter configuration is no JSON object")
    return {name.removeprefix(prefix): value for name, value in fields.items()}


def recorded_alpha(path: Path, layer: str, own: torch.Tensor | None, adapter_config: dict[str, object]) -> float | None:
    """Alpha of a layer: `own`, its tensor in the file, else what the adapter configuration says; None where neither does.

    Raises:
        InputError: it is no number.
    """
    try:
        if own is not None:
            return float(own)
        patterns = adapter_config.get("alpha_pattern") or {}
        fitting = [alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer)]
        alpha = [*fitting, adapter_config.get("lora_alpha")][0]
        return None if alpha is None else float(alpha)
    except (AttributeError, TypeError, ValueError, RuntimeError, re.error) as error:
        raise InputError(f"{path} records an alpha of {layer} that is no number: it is damaged; use another copy.") from error
