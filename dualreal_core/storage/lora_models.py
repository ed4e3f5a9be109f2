"""The model that a LoRA file is for, where no MODEL is at hand: a folder's configuration, or a published one by the file's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..bases.folder_architecture import FolderWeights, architecture_of
from ..errors import InputError
from ..families.published_models import PUBLISHED
from ..method.pair import Role
from .lora_file import LoadedSide, experts_in, load_side
from .lora_file.base_weights import WeightOf
from .lora_file.keys import layers_of
from .lora_file.models import recognise
from .lora_file.reading import read_tensors

RECOGNISED: dict[str, tuple[str, ...]] = {
    "Wan 14B (2.1, or an expert of 2.2)": ("Wan 14B",),
    "Wan 2.2 5B": ("Wan 2.2 5B",),
    "Wan 2.1 1.3B": ("Wan 2.1 1.3B",),
    "LTX-2": ("LTX-2",),
    "LTX-Video 13B": ("LTX-Video 13B", "LTX-2"),
    "LTX-Video 2B": ("LTX-Video 2B",),
    "MiniMax-H3": ("MiniMax-H3",),
    "Kandinsky 5": ("Kandinsky 5 Lite", "Kandinsky 5 Pro"),
    "HunyuanVideo 1.5": ("HunyuanVideo 1.5",),
    "HunyuanVideo": ("HunyuanVideo",),
    "CogVideoX 5B": ("CogVideoX 5B",),
    "CogVideoX 2B": ("CogVideoX 2B",),
    "CogVideoX": ("CogVideoX 2B", "CogVideoX 5B"),
}
"""By what a file seems to be of, the published models that it may be for."""


@dataclass(frozen=True)
class ModelOfLora:
    """A DiT without weights, and what reads those that an update depends on."""

    transformer: nn.Module
    name: str
    weight_of: WeightOf


def model_of(path: Path, base: Path | None = None, expert: str | None = None) -> ModelOfLora:
    """The model that a LoRA file is for.

    Args:
        base: a folder in diffusers layout; None: a published model that is recognised.
        expert: which of two.

    Raises:
        InputError: the folder holds no known DiT, or none is recognised.
    """
    if base is not None:
        return ModelOfLora(architecture_of(base, expert), str(base), FolderWeights(base, expert))
    title = recognise(layers_of(read_tensors(path).tensors).values())
    names = RECOGNISED.get(title or "", ())
    for name in names:
        transformer = PUBLISHED[name].stand_in()
        if len(names) == 1 or _fits(transformer, path, expert):
            return ModelOfLora(transformer, name, lambda _: None)
    seems = f"seems to be of {title}" if title else "is of a model that is not recognised"
    raise InputError(f"{path.name} {seems}: name the model's folder in diffusers layout (--base), of which its configuration is enough.")


def load_for(path: Path, role: Role, base: Path | None = None, expert: str | None = None) -> tuple[LoadedSide, str]:
    """A LoRA file as a side of a pair, and the name of the model that it is for.

    Raises:
        InputError: see `model_of` and `load_side`.
    """
    model = model_of(path, base, expert)
    return load_side(model.transformer, path, role, expert=expert, weight_of=model.weight_of), model.name


def experts_of_file(path: Path) -> Sequence[str]:
    """The experts that a LoRA file holds parts of; of one that is for one DiT none."""
    found = experts_in(path)
    return found if len(found) > 1 else ()


def _fits(transformer: nn.Module, path: Path, expert: str | None) -> bool:
    try:
        load_side(transformer, path, "identity", expert=expert, weight_of=lambda _: None)
    except InputError:
        return False
    return True
