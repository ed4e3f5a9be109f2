"""LoRA files in the naming of peft and diffusers: `transformer.<path>.lora_A.weight` and `lora_B.weight`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from ..errors import InputError
from ..files.atomic import atomic_path
from ..method.pair import AdapterPair, Role, split_key

_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.")
_KEY = re.compile(
    r"(?P<layer>.+?)"
    r"(?:\.(?P<part>lora_A|lora_B|lora_down|lora_up)(?:\.default)?(?:\.weight)?"
    r"|(?:_lora|\.lora|\.lora_linear_layer)\.(?P<other_part>down|up)\.weight)"
)
_DOWN_PARTS, _KOHYA_PARTS = ("lora_A", "lora_down", "down"), ("lora_down", "lora_up")
METADATA_KEY = "lora_adapter_metadata"


def write_lora(path: Path, pair: AdapterPair, role: Role) -> None:
    """Writes one LoRA side so that `load_lora_weights` of diffusers takes it.

    Alpha is folded into `lora_B`, so that readers that ignore the metadata compute the same.

    Raises:
        InputError: the side is no LoRA, the family has blocks of several kinds, the pair is for several experts, or the file cannot
            be written.
    """
    if pair.config.experts:
        raise InputError(
            f"The pair is for {len(pair.config.experts)} experts ({', '.join(pair.config.experts)}), each of which loads a LoRA of its "
            "own: write a file for each, the first from expert_of(pair, 0)."
        )
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
class LoraLayer:
    """What a file holds of one layer.

    Attributes:
        name: of the layer in the file, with its prefix.
        keeps_kohya_names: its matrices are called `lora_down` and `lora_up`.
        alpha: a tensor of its own.
    """

    name: str
    keeps_kohya_names: bool
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: torch.Tensor | None = None

    @property
    def short_name(self) -> str:
        """Its name without prefixes."""
        name = self.name
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        return name

    @property
    def is_empty(self) -> bool:
        """Whether it has rank 0: it then changes nothing."""
        return any(matrix is not None and not matrix.numel() for matrix in (self.down, self.up))

    def tensors(self) -> list[torch.Tensor]:
        """What there is of it."""
        return [tensor for tensor in (self.down, self.up, self.alpha) if tensor is not None]


def layers_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, LoraLayer]:
    """The layers of a LoRA file, by their names in it."""
    found: dict[str, LoraLayer] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is not None:
            name, part = match["layer"], match["part"] or match["other_part"]
            layer = found.setdefault(name, LoraLayer(name, part in _KOHYA_PARTS, alpha=tensors.get(f"{name}.alpha")))
            setattr(layer, "down" if part in _DOWN_PARTS else "up", tensor)
    return found


def other_tensors(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of what is no part of a plain LoRA."""
    return [name for name in tensors if not _KEY.fullmatch(name) and not name.endswith(".alpha")]
