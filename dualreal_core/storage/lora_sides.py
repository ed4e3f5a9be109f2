"""A LoRA file or a pair file as one side of a pair, where no MODEL is at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..families.expert_names import EXPERTS
from ..method.experts import join_experts
from ..method.pair import AdapterPair, Role
from .format import HEADER_KEY, load_pair
from .lora_file import LoadedSide
from .lora_models import experts_of_file, load_for


@dataclass(frozen=True)
class Side:
    """Attributes:
    pair: that has the side.
    header: of it.
    said: sentences on the model that it is for, and on what of a file it lacks.
    """

    pair: AdapterPair
    header: Mapping[str, object]
    said: tuple[str, ...] = ()


def side_of(path: Path, role: Role, base: Path | None = None, low: Path | None = None) -> Side:
    """A side out of a pair file, or out of a LoRA file.

    Args:
        base: folder of the model, for LoRA files; None: a published one that is recognised.
        low: the low-noise expert's file, where `path` is that of the other.

    Raises:
        InputError: the file is neither, or of no known model; or a pair file has a partner.
    """
    if not is_pair_file(path):
        return side_of_lora(path, role, base, low)
    if low is not None:
        raise InputError(f"{path.name} is a pair file, which holds both experts where it is for two: leave out the low-noise one's file.")
    pair, header = load_pair(path)
    return Side(pair, {"source": path.name, **header})


def side_of_lora(path: Path, role: Role, base: Path | None = None, low: Path | None = None) -> Side:
    """A LoRA file as a side; of a file that holds both experts, or of the files of both, as one for two experts.

    Raises:
        InputError: see `side_of`.
    """
    experts = EXPERTS if low is not None else experts_of_file(path)
    if not experts:
        loaded, model = load_for(path, role, base)
        return Side(loaded.pair, loaded.header, _said(path, loaded, model, base))
    files = dict(zip(EXPERTS, (path, path if low is None else low), strict=True))
    loaded = {expert: load_for(file, role, base, expert) for expert, file in files.items()}
    pair = join_experts(*(one.pair for one, _ in loaded.values()))
    headers = {expert: one.header for expert, (one, _) in loaded.items()}
    header = {
        "source": {expert: file.name for expert, file in files.items()},
        "training": {expert: own["training"] for expert, own in headers.items()},
        "prompts": {name: words for own in reversed(headers.values()) for name, words in own.get("prompts", {}).items()},
    }
    said = [line for (one, model), file in zip(loaded.values(), files.values(), strict=True) for line in _said(file, one, model, base)]
    return Side(pair, header, tuple(dict.fromkeys(said)))


def is_pair_file(path: Path) -> bool:
    """Whether a file is a pair, by its header, or a checkpoint of the paper's code, by its suffix."""
    if path.suffix in (".pth", ".pt", ".ckpt", ".bin") or path.is_dir():
        return path.suffix == ".pth"
    try:
        with safe_open(path, "pt") as file:
            return HEADER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _said(path: Path, loaded: LoadedSide, model: str, base: Path | None) -> tuple[str, ...]:
    read = "" if base is not None else f"{path.name} is read as a LoRA of {model}."
    return tuple(filter(None, (read, loaded.report.sentence(applies_beside=False))))
