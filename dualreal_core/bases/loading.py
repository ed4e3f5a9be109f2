"""Models and tokenizers from local folders: what fails is said in one sentence, and no weight is left to chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..errors import InputError, first_line
from .folder_files import weight_variant

LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError)
"""What transformers and diffusers raise on folders that are damaged or of another kind."""

Loaded = TypeVar("Loaded")
Model = TypeVar("Model", bound=nn.Module)


def explained(load: Callable[[], Loaded], folder: Path) -> Loaded:
    """Result of `load`, whose failures become one sentence that names the folder.

    Raises:
        InputError: it failed.
    """
    try:
        return load()
    except LOADING_ERRORS as problem:
        raise InputError(f"{folder} does not load ({first_line(problem)}): download it again.") from problem


def load_weights(
    model_class: type[Model],
    folder: Path,
    dtype: torch.dtype,
    device: str,
    options: Mapping[str, object] = MappingProxyType({}),
    may_lack: Sequence[str] = (),
) -> Model:
    """A frozen model in evaluation mode.

    Args:
        options: further arguments of `from_pretrained`.
        may_lack: endings of the names of weights that are not used.

    Raises:
        InputError: the folder does not load, or lacks weights, which the libraries would fill at random.
    """
    keyword = "dtype" if issubclass(model_class, PreTrainedModel) else "torch_dtype"
    local = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, "variant": weight_variant(folder)}
    model, report = explained(lambda: model_class.from_pretrained(folder, **{keyword: dtype}, **local, **options), folder)
    check_complete(model_class, folder, [name for name in report["missing_keys"] if not name.endswith(tuple(may_lack))])
    return model.eval().requires_grad_(False).to(device)


def check_complete(model_class: type[nn.Module], folder: Path, missing: Sequence[str]) -> None:
    """Raises InputError where weights of these names are missing."""
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} weights of a {model_class.__name__}, such as {min(missing)}: download it again.")
