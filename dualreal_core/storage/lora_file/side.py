"""A LoRA file, whatever its kind and names, as one side of a pair: what acts in the blocks, and what would act beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...errors import InputError
from ...families import family_of
from ...families.expert_names import split_experts
from ...files.digest import file_digest
from ...method.from_lora import one_sided_pair
from ...method.pair import AdapterPair, Role
from ..lora_strength import LoraStrength
from .base_weights import WeightOf, weights_of
from .keys import MAY_BE_WHOLE_NUMBERS, VALUE, FileLayer, adapters_of, layers_of
from .kinds import UNKNOWN
from .models import check_twins
from .reading import LoraTensors, keys_in, read_tensors
from .report import LoadReport
from .resolve import is_foreign
from .settings import check_settings
from .sorting import BesideUpdate, SideReader
from .triggers import triggers_of


@dataclass(frozen=True)
class LoadedSide:
    """A LoRA file as one side.

    Attributes:
        pair: what acts by stage and depth.
        beside: what can act with a constant strength alone, by hosts that patch weights.
        report: what became of the file.
        header: what a pair's file would say of it.
    """

    pair: AdapterPair
    beside: tuple[BesideUpdate, ...]
    report: LoadReport
    header: Mapping[str, object]


def load_side(
    transformer: nn.Module, path: Path, role: Role, *, expert: str | None = None, weight_of: WeightOf | None = None
) -> LoadedSide:
    """Reads a LoRA file for a DiT.

    Args:
        path: of the file, or of a folder that peft or diffusers wrote.
        expert: which of two the DiT is; it decides what is taken of a file that holds LoRAs of both.
        weight_of: reads the DiT's weights where it is not enough to look at its parameters.

    Raises:
        InputError: the file is damaged, incomplete, of another model or of a kind that is not known, or it changes no block.
    """
    path, metadata, layers, others = _layers_in(path, expert)
    check_twins(path.name, family_of(transformer).name, metadata, layers)
    strength = LoraStrength.of(path, metadata, expert)
    check_settings(path.name, strength.adapter_config)
    reader = SideReader(transformer, path.name, strength, weight_of or weights_of(transformer))
    reader.read(layers)
    with torch.no_grad():
        pair = one_sided_pair(transformer, role, reader.updates, path.name)
    pair.requires_grad_(False)
    triggers = triggers_of(metadata)
    report = reader.report(triggers, others)
    header: dict[str, object] = {
        "source": path.name,
        "training": {"lora": path.name, "sha256": file_digest(path)},
    }
    if triggers:
        header["prompts"] = {"trigger" if role == "identity" else role: triggers[0]}
    return LoadedSide(pair, tuple(reader.beside()), report, header)


def _layers_in(path: Path, expert: str | None) -> tuple[Path, Mapping[str, str], dict[str, FileLayer], tuple[str, ...]]:
    """The file itself, its metadata, layers and a sentence on others; nothing else holds the tensors, which go as they are read."""
    file = read_tensors(path)
    tensors, others = of_expert(file, expert)
    return file.path, file.metadata, checked_layers(file.path.name, tensors), others


def experts_in(path: Path) -> tuple[str, ...]:
    """The experts for which a LoRA file holds parts of their own, by its keys.

    Raises:
        InputError: the file is damaged, or no LoRA file.
    """
    return tuple(split_experts(dict.fromkeys(keys_in(path))))


def of_expert(file: LoraTensors, expert: str | None) -> tuple[Mapping[str, torch.Tensor], tuple[str, ...]]:
    """What belongs to an expert, and a sentence on the other.

    Raises:
        InputError: the file holds LoRAs of both, and which one is meant is not known.
    """
    parts = split_experts(file.tensors)
    if not parts:
        return file.tensors, ()
    if len(parts) == 1:
        ((own, tensors),) = parts.items()
        said = f"Its keys are of the {own} expert, and this model is the {expert} one: check which file is for which."
        return tensors, () if expert in (None, own) else (said,)
    if expert not in parts:
        raise InputError(f"{file.path.name} holds LoRAs of both experts of a model ({' and '.join(parts)}): use Load LoRAs (two experts).")
    return parts.pop(expert), tuple(f"Left out {len(part)} tensors of the {other} expert." for other, part in parts.items())


def checked_layers(file: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, FileLayer]:
    """The layers of a file.

    Raises:
        InputError: it is of a method that is not known, holds several adapters, or numbers that are none.
    """
    unknown = next((title for key in tensors for mark, title in UNKNOWN.items() if mark in key), None)
    if unknown is not None:
        raise InputError(f"{file} is of the method {unknown}, which is not known here: convert it to a LoRA by the program that made it.")
    adapters = adapters_of(key for key in tensors if not is_foreign(key))
    if len(adapters) > 1:
        raise InputError(f"{file} holds several adapters ({', '.join(sorted(adapters))}): save them one by one.")
    try:
        layers = layers_of(tensors)
    except ValueError as error:
        raise InputError(f"{file} holds several updates of one layer: {error}. Give a file with one of them.") from error
    for layer in layers.values():
        owner = layer.name.rpartition(".")[0] if VALUE in layer.parts else ""
        if (found := layers.get(owner) or layers.get(owner.rpartition(".")[0])) is not None and not found.is_whole:
            part = layer.name.removeprefix(found.name).strip(".")
            raise InputError(
                f"{file} holds {part} of {found.name}, which belongs to no kind of update that is known here (as scales of quantized "
                "matrices): convert it to a plain LoRA by the program that made it."
            )
        for part, tensor in layer.parts.items():
            if not tensor.is_floating_point() and part not in MAY_BE_WHOLE_NUMBERS:
                raise InputError(
                    f"{file} holds whole numbers in {part} of {layer.name}, as a quantized file does: use a copy in bf16, fp16 or fp32."
                )
            if tensor.is_floating_point() and part != "alpha" and not is_finite(tensor):
                raise InputError(
                    f"{file} holds values that are no numbers (NaN or infinite, in {part} of {layer.name}): its training failed; use "
                    "another one."
                )
    return layers


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all of it are numbers; a sum, which is cheap, tells it unless it overflows."""
    try:
        values = tensor.float()
    except (RuntimeError, NotImplementedError):  # a dtype that is stored alone
        return False
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())
