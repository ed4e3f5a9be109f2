"""The tensors of a LoRA file or of a folder that peft or diffusers wrote, on the CPU; nothing in it is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...errors import InputError
from ...files.torch_file import load_whole
from .containers import unpacked

IN_FOLDERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin", "pytorch_lora_weights.bin")
"""What programs call a LoRA that they write to a folder."""
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.\w+)")
_DAMAGED = (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError)


@dataclass(frozen=True)
class LoraTensors:
    """What a file holds.

    Attributes:
        path: of the file itself; of one in several parts, of the first.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


def read_tensors(path: Path) -> LoraTensors:
    """Reads a file, the one that stands for a folder, or all parts of one that was saved in several.

    Raises:
        InputError: there is none, it is damaged or a part is missing, or it holds no tensors.
    """
    path, tensors, metadata = file_of(Path(path)), {}, {}
    for part in _parts(path):
        own, said = _read(part)
        tensors |= own
        metadata = {**said, **metadata}
    if not tensors:
        raise InputError(f"{path.name} is no LoRA file (it holds no tensors): use another one.")
    return LoraTensors(path, tensors, metadata)


def keys_in(path: Path) -> list[str]:
    """The names of a file's tensors, which are not read where its format allows it.

    Raises:
        InputError: see `read_tensors`.
    """
    path = file_of(Path(path))
    if path.suffix.lower() in TORCH_SUFFIXES:
        return list(read_tensors(path).tensors)
    try:
        names = []
        for part in _parts(path):
            with safe_open(part, "pt") as file:
                names += file.keys()
        return names
    except _DAMAGED as error:
        raise _no_lora(path) from error


def _read(path: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, str]]:
    try:
        if path.suffix.lower() not in TORCH_SUFFIXES:
            with safe_open(path, "pt") as file:
                # cloned because what stays mapped to its file changes, or ends the process, when that is written over
                return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
        loaded = load_whole(path)
    except _DAMAGED as error:
        raise _no_lora(path) from error
    try:
        return unpacked(loaded)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is no LoRA file (it holds no tensors, or nests them without end): use another one.") from error


def _no_lora(path: Path) -> InputError:
    return InputError(f"{path.name} is no complete LoRA file (damaged, or something else): use another copy.")


def file_of(path: Path) -> Path:
    """The file itself, of a folder the one that stands for it.

    Raises:
        InputError: there is none, or there are several.
    """
    if path.is_dir():
        named = [path / name for name in IN_FOLDERS if (path / name).is_file()]
        found = named or _without_later_parts(sorted(path.glob("*.safetensors")))
        if not found:
            raise InputError(f"{path} is a folder without a LoRA file ({', '.join(IN_FOLDERS[:2])}): give the file itself.")
        if len(found) > 1 and not named:
            raise InputError(f"{path} is a folder of {len(found)} files ({found[0].name}, {found[1].name} ...): give the file itself.")
        return found[0]
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path of the LoRA file.")
    return path


def _without_later_parts(files: list[Path]) -> list[Path]:
    return [file for file in files if (match := _SHARD.fullmatch(file.name)) is None or int(match["number"]) == 1]


def _parts(path: Path) -> list[Path]:
    """All files of one that was saved in several."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    names = [f"{match['stem']}-{number:05}-of-{match['total']}{match['suffix']}" for number in range(1, int(match["total"]) + 1)]
    missing = next((name for name in names if not path.with_name(name).is_file()), None)
    if missing is not None:
        raise InputError(f"{path.name} is one of {len(names)} parts of a file, and {missing} is not beside it: put all of them there.")
    return [path.with_name(name) for name in names]
