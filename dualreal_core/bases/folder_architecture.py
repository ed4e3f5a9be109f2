"""The DiT of a model folder in diffusers layout by its configuration alone, and its weights one by one where they are asked for."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import InputError
from ..families import family_of
from ..families.expert_names import HIGH, LOW
from .folder_files import read_json

CONFIG = "config.json"
COMPONENTS = {HIGH: "transformer", LOW: "transformer_2"}
"""By expert, the subfolder of its DiT."""


def folder_of(folder: Path, expert: str | None = None) -> Path:
    """The folder of the DiT: the one given, or in it that of an expert.

    Raises:
        InputError: there is none.
    """
    folder = Path(folder)
    for path in (folder / COMPONENTS.get(expert or "", "transformer"), folder / "transformer", folder):
        if (path / CONFIG).is_file():
            return path
    raise InputError(f"{folder} holds no DiT in diffusers layout ({CONFIG} in it, or in transformer/): give such a model folder.")


def architecture_of(folder: Path, expert: str | None = None) -> nn.Module:
    """The DiT on the meta device, without weights.

    Raises:
        InputError: there is none, or it is of a class that is not known.
    """
    path = folder_of(folder, expert)
    config = read_json(path / CONFIG)
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
        raise InputError(f"{path / CONFIG} names no model of diffusers ({config.get('_class_name')}): give the folder of a video model.")
    try:
        with torch.device("meta"):
            transformer = kind.from_config(config)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path / CONFIG} is no configuration of a {kind.__name__} ({error}): take the model's original files.") from error
    family_of(transformer)
    return transformer


class FolderWeights:
    """Reads a DiT's weights by name out of its folder; those that are not there are None."""

    def __init__(self, folder: Path, expert: str | None = None) -> None:
        self.files: dict[str, Path] = {}
        for path in sorted(folder_of(folder, expert).glob("*.safetensors")):
            try:
                with safe_open(path, "pt") as file:
                    self.files |= dict.fromkeys(file.keys(), path)
            except (SafetensorError, OSError):  # what needs its weights says so
                continue

    def __call__(self, name: str) -> torch.Tensor | None:
        if name not in self.files:
            return None
        with safe_open(self.files[name], "pt") as file:
            tensor = file.get_tensor(name)
        return tensor.float() if tensor.is_floating_point() else None
