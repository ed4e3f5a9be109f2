"""Two LoRA files as the sides of one pair, read once for as long as files and model stay the same."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.families.expert_names import EXPERTS, HIGH, LOW
from ..dualreal_core.method.pair import ROLES, Role
from ..dualreal_core.method.side_norms import norms_by_block
from .adapters import LORAS, file_in, joined
from .experts import FOUND_BY_NAME, NONE, SAME_FILE, files_of_experts, fingerprint_of_experts, import_experts
from .lora_import import import_lora
from .types import TrainedPair

MAX_KEPT = 2
"""Readings that are kept beside those that ComfyUI itself keeps: those of the two graphs that were run last."""


@dataclass(frozen=True)
class LoraFile:
    """One side: a file in models/loras, or `NONE`, and for two experts that of the other one, or how it is found.

    Names that are wired are None for as long as they are not known.
    """

    name: str | None
    partner: str | None = FOUND_BY_NAME


@dataclass(frozen=True)
class LoraSides:
    """What was read of the files.

    Attributes:
        pair: with one side or both.
        said: what is to be said of them.
        norms: of each side by block.
    """

    pair: TrainedPair
    said: tuple[str, ...]
    norms: Mapping[Role, list[float]]


@dataclass(frozen=True)
class _Kept:
    models: tuple[weakref.ref[nn.Module], ...]
    key: tuple[str, ...]
    sides: LoraSides


_kept: list[_Kept] = []
"""The latest last. A file of hundreds of megabytes is not to be read again because a strength has changed."""


def read_sides(models: list[ModelPatcher], files: Mapping[Role, LoraFile]) -> LoraSides:
    """Both sides, from the files or from the last reading of these for the same model.

    Args:
        models: the MODEL; or of two experts the high-noise and the low-noise one.

    Raises:
        InputError: there is no file, one is missing, or one does not fit.
    """
    given = {role: file for role, file in files.items() if file.name != NONE}
    if not given:
        raise InputError(f"identity_lora and motion_lora are both '{NONE}': choose a file for at least one side.")
    roots = [model.model for model in models]
    key = (*(role + file.name + file.partner for role, file in given.items()), fingerprint_of(given, len(models) > 1))
    for index, kept in enumerate(_kept):
        if kept.key == key and [one() for one in kept.models] == roots:
            _kept.append(_kept.pop(index))
            return kept.sides
    sides = _read(models, given)

    def forget(_: object) -> None:
        _kept[:] = [kept for kept in _kept if all(one() is not None for one in kept.models)]

    _kept.append(_Kept(tuple(weakref.ref(root, forget) for root in roots), key, sides))
    del _kept[:-MAX_KEPT]
    return sides


def fingerprint_of(files: Mapping[Role, LoraFile], has_experts: bool) -> str:
    """Changes when one of the files does, or another one is found by its name."""
    own = [file for file in files.values() if file.name != NONE]
    return " ".join(fingerprint_of_experts(file.name, file.partner if has_experts else NONE) for file in own)


def _read(models: list[ModelPatcher], files: Mapping[Role, LoraFile]) -> LoraSides:
    found: dict[Role, TrainedPair] = {}
    heads: list[str] = []
    said: list[str] = []
    norms: dict[Role, list[float]] = {}
    for role, file in files.items():
        of_files: list[str] = []
        if len(models) == 1:
            path = file_in(LORAS, file.name)
            found[role], note = import_lora(models[0], path, role)
            notes = [note] if note else []
        else:
            of_experts, of_files = _of_experts(file, role)
            found[role], notes = import_experts(dict(zip(EXPERTS, models, strict=True)), of_experts, role)
        norms[role] = norms_by_block(found[role].pair, role)
        heads.append(_about(role, file, found[role], norms[role]))
        said += [*of_files, *notes]
    whole = joined(*(found[role] for role in ROLES)) if len(found) > 1 else next(iter(found.values()))
    return LoraSides(whole, (*heads, *said), norms)  # both sides' trigger words stand where a small node shows them


def _of_experts(file: LoraFile, role: Role) -> tuple[dict[str, str], list[str]]:
    if file.partner == SAME_FILE:
        return {HIGH: file.name, LOW: file.name}, [f"{file.name} acts on both experts."]
    return files_of_experts(file.name, file.partner, f"{role}_partner", may_share=True)


def _about(role: Role, file: LoraFile, read: TrainedPair, norms: list[float]) -> str:
    """What a side is, in one line."""
    layers, norm = len(read.pair.sides[role]), math.hypot(*norms)
    words = read.header.get("prompts", {}).get("trigger" if role == "identity" else role)
    triggers = f"trigger words: {words}." if words else "no trigger words named."
    return f"{role.title()}: {Path(file.name).name}, {layers} layer{'s' * (layers > 1)}, norm {norm:.3g}; {triggers}"
