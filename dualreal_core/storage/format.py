"""The pair file: one `.safetensors` with a JSON header under the metadata key `dualreal`.

Header, format version 1: `format_version`, `config` (the fields of `PairConfig`), `base` (name and fingerprint),
`prompts` (identity and motion, with their triggers), `training` (settings and steps), `datasets` (sha256 of each file
used, per role), `consent` (the user's note), `provenance` (date, library versions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..atomic import atomic_path
from ..errors import InputError
from ..families import FAMILIES
from ..pair import AdapterPair, PairConfig
from ..provenance import provenance
from .reference import is_reference, pair_from_reference, read_reference

FORMAT_VERSION = 1
HEADER_KEY = "dualreal"
SIDES = "sides."

Header = dict[str, object]


def save_pair(path: Path, pair: AdapterPair, header: Mapping[str, object] | None = None) -> None:
    """Writes a pair atomically, weights in the dtype they have.

    Args:
        header: further header fields: base, prompts, training, datasets, consent.

    Raises:
        InputError: the file cannot be written.
    """
    full = {"format_version": FORMAT_VERSION, "config": asdict(pair.config), "provenance": provenance(), **(header or {})}
    tensors = {name.removeprefix(SIDES): tensor.detach().cpu().contiguous() for name, tensor in pair.state_dict().items()}
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(save(tensors, {HEADER_KEY: json.dumps(full, sort_keys=True)}))


def read_header(path: Path) -> Header:
    """The JSON header of a pair file, without its weights.

    Raises:
        InputError: no such file, damaged, or no pair file.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if HEADER_KEY not in metadata:
            raise InputError(f"{path} is no DualReal pair (it has no '{HEADER_KEY}' header): give a file that `dualreal train` wrote.")
    try:
        header = json.loads(metadata[HEADER_KEY])
        version = int(header["format_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} has a damaged '{HEADER_KEY}' header ({_first_line(error)}): use another copy.") from error
    if version > FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}, newer than {FORMAT_VERSION}: update DualReal to read it.")
    return header


def load_pair(path: Path) -> tuple[AdapterPair, Header]:
    """Reads a pair and its header; also takes the reference's `.pth` and its keys in a `.safetensors`.

    Raises:
        InputError: no such file, damaged, not a pair, or its tensors do not fit its header.
    """
    path = Path(path)
    if path.suffix in {".pth", ".pt", ".bin", ".ckpt"}:
        return pair_from_reference(read_reference(path), path), {"format_version": 0, "source": path.name}
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    if is_reference(tensors):
        return pair_from_reference(tensors, path), {"format_version": 0, "source": path.name}
    header = read_header(path)
    try:
        config = PairConfig(**{**header["config"], "target_layers": tuple(header["config"].get("target_layers", ()))})
        family = next(family for family in FAMILIES.values() if family.name == config.family)
        pair = AdapterPair(config, family, _lora_sizes(tensors))
        pair.load_state_dict({name if name.startswith("controller.") else SIDES + name: tensor for name, tensor in tensors.items()})
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        reason = _first_line(error)
        raise InputError(f"{path} does not hold what its header says ({reason}): it was changed or damaged; use another copy.") from error
    return pair, header


def _opened(path: Path):
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path of the pair file.")
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        reason = _first_line(error)
        raise InputError(
            f"{path} is no complete safetensors file ({reason}): it is truncated or something else; use another copy."
        ) from error


def _lora_sizes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, int]]:
    sizes: dict[str, tuple[int, int]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".down.weight") and "/" in name:
            layer = name.split(".")[1].partition("-")[2].replace("/", ".")
            sizes[layer] = (tensor.shape[1], tensors[name.replace(".down.", ".up.")].shape[0])
    return sizes


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
