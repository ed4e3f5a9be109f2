"""Prompts as a base's DiT reads them; those of the generic ones are kept, as every gate needs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..bases.base import Base, Progress
from ..files.atomic import atomic_path
from .generic_prompts import generic_prompts
from .tokens import without_padding

CACHE_VERSION = 1


def encode_prompts(base: Base, prompts: Sequence[str], cache: Path, progress: Progress | None = None) -> list[torch.Tensor]:
    """Tokens (T_i, X) of each prompt, on the CPU, in the precision of the encoder, without padding.

    Args:
        cache: folder for those of the generic prompts; may be deleted at any time.
        progress: called with (prompts done, prompts in all); what it raises ends the work.

    Raises:
        InputError: the folder takes no files.
    """
    generic = [template.text for template in generic_prompts()]
    file = Path(cache) / f"prompts-{_digest([CACHE_VERSION, base.fingerprint, generic])}.safetensors"
    known = _read(file, generic)
    wanted = list(dict.fromkeys([*generic, *prompts]))
    missing = [prompt for prompt in wanted if prompt not in known]
    done = len(wanted) - len(missing)
    with base.encoders(), torch.no_grad():
        for number, prompt in enumerate(missing, done + 1):
            known[prompt] = without_padding(base.dit_text(base.encode_text(prompt))).cpu().contiguous().clone()
            if prompt == generic[-1]:
                _write(file, [known[text] for text in generic])
            if progress:
                progress(number, len(wanted))
    return [known[prompt] for prompt in prompts]


def _write(file: Path, texts: Sequence[torch.Tensor]) -> None:
    content = save_tensors({str(place): text for place, text in enumerate(texts)})
    with atomic_path(file) as temporary:
        temporary.write_bytes(content)


def _read(file: Path, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Nothing where the file is absent or damaged."""
    try:
        tensors = load_tensors(file.read_bytes())
        return {prompt: tensors[str(place)] for place, prompt in enumerate(prompts)}
    except (OSError, KeyError, SafetensorError):
        return {}


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
