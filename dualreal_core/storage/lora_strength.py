"""How strong the layers of a LoRA file act: the one rule for nodes and command line.

The first of these that a file has counts: the layer's own tensor `alpha`; what peft's configuration says; kohya's
`ss_network_alpha`. The last in files of kohya's own names alone: converters to others fold alpha into the weights and leave
the metadata as they are. Without any of them `up @ down` acts as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from ..errors import InputError
from ..families.expert_names import EXPERTS
from .layer_patterns import fits

METADATA_KEY = "lora_adapter_metadata"
METADATA_KEYS = (METADATA_KEY, "lora_config", "adapter_config", "peft_config")
"""Of diffusers, finetrainers, and scripts."""
PLAIN_ALPHA = ("lora_alpha", "alpha", "network_alpha")
PLAIN_RANK = ("lora_rank", "rank", "r", "network_dim", "network_rank")
"""Fields of the metadata themselves, where they are numbers: of LightX2V's, VideoX-Fun's and others' files for MiniMax-H3 and LTX."""
NETWORK_ALPHA_KEY = "ss_network_alpha"
CONFIG_FILE = "adapter_config.json"
_SECTIONS = ("transformer.", "diffusion_model.", "unet.", "")
"""Prefixes of fields in the metadata that are about the DiT; `text_encoder.` and the like are not."""
_SECTIONS_OF_EXPERTS = dict(zip(EXPERTS, (("transformer_1.",), ("transformer_2.",)), strict=True))


class Layer(Protocol):
    """What a file holds of a layer."""

    short_name: str
    keeps_kohya_names: bool
    alpha: torch.Tensor | None


@dataclass(frozen=True)
class PlainScaling:
    """Alpha as a field of the metadata, with the rank that it is of.

    Attributes:
        rank: None where the metadata do not say it.
        divides_by_root: as rsLoRA.
    """

    alpha: float
    rank: float | None
    divides_by_root: bool

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> PlainScaling | None:
        """None where no field is a number, or where an `alpha` has no rank beside it: merges call other things so."""
        rank = next((found for name in PLAIN_RANK if (found := _plain_number(metadata.get(name)))), None)
        names = PLAIN_ALPHA if rank else PLAIN_ALPHA[:1]
        alpha = next((found for name in names if (found := _plain_number(metadata.get(name))) is not None), None)
        return None if alpha is None else cls(alpha, rank, str(metadata.get("use_rslora", "")).lower() == "true")

    def factor(self, rank: int) -> float:
        """On the update of a layer of a rank: that of the whole file, also where a layer's rank became another one."""
        own = self.rank if self.rank and self.rank > 0 else rank
        return self.alpha / (math.sqrt(own) if self.divides_by_root else own)


@dataclass(frozen=True)
class LoraStrength:
    """What a LoRA file records of its strength.

    Attributes:
        file: for error messages.
        adapter_config: fields of peft's configuration.
        network_alpha: kohya's, None where there is none.
        plain_scaling: alpha by the rank that stands beside it in the metadata, or alpha alone where none does.
    """

    file: str
    adapter_config: Mapping[str, object] = field(default_factory=dict)
    network_alpha: object = None
    plain_scaling: PlainScaling | None = None

    @classmethod
    def of(cls, path: Path, metadata: Mapping[str, str], expert: str | None = None) -> LoraStrength:
        """By the metadata of a file or, in a folder that peft wrote, by the configuration beside it.

        Args:
            expert: whose settings count, where the metadata have them for each of two.

        Raises:
            InputError: the configuration is damaged.
        """
        beside, sections = path.with_name(CONFIG_FILE), (*_SECTIONS_OF_EXPERTS.get(expert, ()), *_SECTIONS)
        place = next((key for key in METADATA_KEYS if key in metadata), METADATA_KEY)
        text = metadata.get(place)
        try:
            if text is None and path.stem == "adapter_model" and beside.is_file():
                place, text, sections = beside.name, beside.read_text(encoding="utf-8"), ("",)
            fields = json.loads(text or "{}")
            if not isinstance(fields, dict):
                raise ValueError("no JSON object")
        except (OSError, ValueError, RecursionError) as error:
            where = place if place == CONFIG_FILE else f"its {place}"
            raise InputError(f"{path.name} says by {where} how strong it is, which is damaged ({error}): use another copy.") from error
        own = next((found for section in sections if (found := _section(fields, section))), {})
        return cls(path.name, own, metadata.get(NETWORK_ALPHA_KEY), PlainScaling.of(metadata))

    @property
    def is_dora(self) -> bool:
        """Whether the configuration says so."""
        return bool(self.adapter_config.get("use_dora"))

    @property
    def is_of_peft(self) -> bool:
        """Whether there is a configuration of peft."""
        return bool(self.adapter_config)

    def alpha(self, layer: Layer) -> float | None:
        """Alpha of a layer, None where none is recorded.

        Raises:
            InputError: it is no finite number, or peft's pattern for it cannot be read.
        """
        return self._alpha_and_root(layer)[0]

    def shown_alpha(self, layer: Layer) -> float | None:
        """Alpha of a low-rank layer, also where it stands for the whole file as a field of its metadata.

        Raises:
            InputError: see `alpha`.
        """
        alpha = self.alpha(layer)
        return self.plain_scaling.alpha if alpha is None and self.plain_scaling is not None else alpha

    def scaling(self, layer: Layer, rank: int) -> float:
        """Factor on the update of a layer that is not empty.

        Raises:
            InputError: see `alpha`.
        """
        alpha, divides_by_root = self._alpha_and_root(layer)
        if alpha is None:
            return 1.0 if self.plain_scaling is None else self.plain_scaling.factor(rank)
        return alpha / (math.sqrt(rank) if divides_by_root else rank)

    def configured_rank(self, layer: Layer) -> int | None:
        """The rank that peft's configuration gives a layer, None where it gives none.

        Raises:
            InputError: it is no positive number, or peft's pattern for it cannot be read.
        """
        rank = self._by_pattern("rank_pattern", layer, self.adapter_config.get("r"))
        if rank is None:
            return None
        if not isinstance(rank, int) or rank < 1:
            raise InputError(f"{self.file} records a rank of {layer.short_name} that is {rank!r}: it is damaged; use another copy.")
        return rank

    def _alpha_and_root(self, layer: Layer) -> tuple[float | None, bool]:
        """Alpha, and whether it is divided by the root of the rank (rsLoRA)."""
        try:
            if layer.alpha is not None:
                return _finite(layer.alpha), False
            alpha = self._configured_alpha(layer)
            if alpha is not None:
                return _finite(alpha), self.adapter_config.get("use_rslora") is True
            if layer.keeps_kohya_names and self.network_alpha not in (None, "", "None"):
                return _finite(self.network_alpha), False
        except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(
                f"{self.file} records an alpha of {layer.short_name} that is no number ({error}): it is damaged; use another copy."
            ) from error
        return None, False

    def _configured_alpha(self, layer: Layer) -> object:
        fields = self.adapter_config
        return self._by_pattern("alpha_pattern", layer, fields.get("lora_alpha", fields.get("alpha")))

    def _by_pattern(self, name: str, layer: Layer, otherwise: object) -> object:
        for pattern, value in (self.adapter_config.get(name) or {}).items():
            try:
                if fits(pattern, layer.short_name):
                    return value
            except ValueError as error:
                raise InputError(
                    f"{self.file} records {name.removesuffix('_pattern')} by a pattern of layer names that is not understood ({error}): "
                    f"use a file with one {name.removesuffix('_pattern')} for each layer, or for all of them."
                ) from error
        return otherwise


def _section(fields: Mapping[str, object], prefix: str) -> dict[str, object]:
    return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix) and (prefix or "." not in name)}


def _plain_number(text: object) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _finite(value: object) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number}")
    return number
