"""The layers of a LoRA file, by the names that their matrices have in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.")
_KEY = re.compile(
    r"(?P<layer>.+?)"
    r"(?:\.(?P<part>lora_A|lora_B|lora_down|lora_up)(?:\.default)?(?:\.weight)?"
    r"|(?:_lora|\.lora|\.lora_linear_layer)\.(?P<other_part>down|up)\.weight)"
)
_DOWN_PARTS, _KOHYA_PARTS = ("lora_A", "lora_down", "down"), ("lora_down", "lora_up")
METADATA_KEY = "lora_adapter_metadata"


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
