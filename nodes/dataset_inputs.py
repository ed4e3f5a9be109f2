"""What other nodes wire into the dataset nodes, checked and taken apart into single pictures, masks and clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from comfy_api.latest import Input

from ..dualreal_core.errors import InputError
from .videos import with_file_name


def planes(name: str, batches: Sequence[torch.Tensor | None], num_dims: int) -> list[torch.Tensor]:
    """Each picture or mask of batches with that many dimensions, on the CPU; masks may be left out."""
    found = []
    for number, batch in enumerate(batches, 1):
        if batch is None and name == "masks":
            continue
        if not isinstance(batch, torch.Tensor) or batch.ndim < num_dims:
            held = f"a tensor of {batch.ndim} dimensions" if isinstance(batch, torch.Tensor) else type(batch).__name__
            raise InputError(f"{name}: item {number} is {held}; wire the {name} of a loader.")
        found += [plane.cpu() for plane in batch.reshape(-1, *batch.shape[-num_dims:])]
    return found


def picture_names(files: Sequence[str], count: int) -> list[str]:
    if files and len(files) != count:
        raise InputError(f"images holds {count} and names {len(files)}; give one name per image, or none.")
    shown = [file.rpartition("/")[2] for file in files or [""] * count]
    return [f"image {number} ({file})" if file else f"image {number}" for number, file in enumerate(shown, 1)]


def without_notes_of_macos(videos: Sequence[Input.Video], texts: Sequence[str]) -> tuple[list, list, dict[str, str]]:
    """Clips and their texts without the '._' files that macOS leaves on foreign disks; and these with the reason."""
    names = [with_file_name(f"video {index}", video) for index, video in enumerate(videos, 1)]
    strays = {name: "no clip: a note that macOS keeps on the file of that name; it can be deleted" for name in names if "(._" in name}
    if strays and len(strays) == len(names):
        raise InputError(f"videos holds only notes that macOS keeps on files ({', '.join(names)}); wire the clips themselves.")
    keeps = [name not in strays for name in names]
    texts = [text for text, is_kept in zip(texts, keeps, strict=True) if is_kept] if len(texts) == len(videos) else list(texts)
    return [video for video, is_kept in zip(videos, keeps, strict=True) if is_kept], texts, strays
