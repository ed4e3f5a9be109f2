"""The tensors of a LoRA file or of a folder that peft or diffusers wrote, on the CPU; nothing in it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...errors import InputError
from ...files.torch_file import load_whole

IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin", "pytorch_lora_weights.bin")
"""What programs call a LoRA that they write to a folder."""
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_CONTAINERS = ("state_dict", "lora_state_dict", "lora", "module", "model", "weights", "network")


@dataclass(frozen=True)
class LoraTensors:
    """What a file holds.

    Attributes:
        path: of the file itself.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


def read_tensors(path: Path) -> LoraTensors:
    """Reads a file, or the one that stands for a folder.

    Raises:
        InputError: there is none, it is damaged, or it holds no tensors.
    """
    path = _file_of(Path(path))
    try:
        if path.suffix.lower() in TORCH_SUFFIXES:
            tensors, metadata = _unpacked(load_whole(path)), {}
        else:
            with safe_open(path, "pt") as file:
                # cloned because what stays mapped to its file changes, or ends the process, when that is written over
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
                metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path.name} is no complete LoRA file (damaged, or something else): use another copy.") from error
    if not tensors or not all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in tensors.items()):
        raise InputError(f"{path.name} is no LoRA file (it holds no tensors, or more than tensors): use another one.")
    return LoraTensors(path, tensors, metadata)


def _file_of(path: Path) -> Path:
    if path.is_dir():
        found = [path / name for name in IN_FOLDERS if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
        if not found:
            raise InputError(f"{path} is a folder without a LoRA file ({', '.join(IN_FOLDERS[:2])}): give the file itself.")
        return found[0]
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path of the LoRA file.")
    return path


def _unpacked(loaded: object) -> Mapping[str, torch.Tensor]:
    """A flat dict of tensors out of what trainers wrap it in."""
    while isinstance(loaded, Mapping) and not any(isinstance(value, torch.Tensor) for value in loaded.values()):
        inner = next((loaded[name] for name in _CONTAINERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            return {}
        loaded = inner
    return dict(loaded) if isinstance(loaded, Mapping) else {}
