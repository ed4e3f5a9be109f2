"""Model folders on disk: what must be there, whether weight files are whole, and a fingerprint of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from ..errors import InputError

FINGERPRINT_BYTES = 65536

TensorShapes = dict[str, tuple[int, ...]]


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
        InputError: missing file, or no JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: download the whole model folder again.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON ({error}): download it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object: download it again.")
    return content


def check_component(folder: Path) -> TensorShapes:
    """Names and shapes of all weights of a component folder, after checking that config and weight files are whole.

    Raises:
        InputError: something is missing or broken.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: give that of a downloaded model, with its config.json and .safetensors files.")
    read_json(folder / "config.json")
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"{folder} has no .safetensors file: download the weights in safetensors format into it.")
    shapes: TensorShapes = {}
    for path in paths:
        try:
            with safe_open(path, "pt") as file:  # which compares the file's length with its header
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is no complete safetensors file ({error}): the download is broken, repeat it.") from error
    return shapes


def weight_variant(folder: Path) -> str | None:
    """What marks the weights of a component where all of its weight files are marked alike, as 'fp16' in 'model.fp16.safetensors'."""
    marks = {path.name.split(".")[1].partition("-")[0] if path.name.count(".") == 2 else None for path in folder.glob("*.safetensors")}
    return marks.pop() if len(marks) == 1 else None


def check_tokenizer(folder: Path) -> None:
    """Raises InputError where a tokenizer is kept as a SentencePiece model alone, as CogVideoX's is, and nothing here can read one."""
    needed = {"sentencepiece": is_sentencepiece_available, "protobuf": is_protobuf_available}
    missing = [package for package, is_available in needed.items() if not is_available()]
    if missing and not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")):
        packages = " ".join(missing)
        raise InputError(f"{folder} holds a SentencePiece model, and {' and '.join(missing)} must read it: run `pip install {packages}`.")


def fingerprint(folders: Iterable[Path], *settings: str) -> str:
    """SHA-256 over the names, sizes, first and last bytes of the weight files, the whole JSON files, and `settings`.

    Only names relative to each folder count, so a moved model keeps its fingerprint.
    """
    digest = hashlib.sha256("\n".join(settings).encode())
    for folder in folders:
        for path in sorted((*folder.glob("*.json"), *folder.glob("*.model"), *folder.glob("*.safetensors"))):
            size = path.stat().st_size
            digest.update(f"\n{folder.name}/{path.name} {size}\n".encode())
            with path.open("rb") as file:
                if path.suffix != ".safetensors":
                    digest.update(file.read())
                    continue
                digest.update(file.read(FINGERPRINT_BYTES))
                file.seek(max(0, size - FINGERPRINT_BYTES))
                digest.update(file.read(FINGERPRINT_BYTES))
    return digest.hexdigest()
