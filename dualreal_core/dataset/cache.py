"""Everything the frozen encoders say about a manifest, computed once and kept on disk, one file per sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..errors import InputError
from ..files.atomic import atomic_path
from .items import Item
from .manifest import Manifest
from .segments import evenly_spread

if TYPE_CHECKING:
    from ..bases.base import Base

CACHE_VERSION = 2
"""2: the VAEs of model folders split large frames into tiles."""


@dataclass(frozen=True)
class PreparedItem:
    """Attributes:
        latents: (C, f, h, w) fp32.
        text: (T, X).
        conditions: (K, E) reference embeddings of K frames of the clip; None for photos and without an image encoder.
        mask: (1, f, h, w) share of the subject per latent cell; None where the whole picture counts.
        source: file and crop or segment, for people.
        fingerprint: of the file that it was cut from; empty where that is not known.
    """

    latents: torch.Tensor
    text: torch.Tensor
    conditions: torch.Tensor | None
    mask: torch.Tensor | None
    source: str
    fingerprint: str = ""

    @property
    def bucket(self) -> object:
        """Items of one bucket can be batched."""
        return tuple(self.latents.shape)


@dataclass(frozen=True)
class PreparedSet:
    """Attributes:
        fingerprints: sha256 of the files used, in order, each once.
        cut: sha256 of what was made of them: crops, segments, sizes, rates and captions.
    """

    items: list[PreparedItem]
    fingerprints: tuple[str, ...]
    cut: str = ""


def prepare(
    base: Base,
    manifest: Manifest,
    cache_dir: Path | str,
    condition_frames: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSet:
    """Loads what the cache holds and encodes the rest; the encoders are loaded only if something is missing.

    Files are named by what their content depends on and appear whole, so that several runs and processes can share a folder.

    cache_dir: may be deleted at any time that nothing is prepared.
    condition_frames: K, how many evenly spaced frames of a clip are embedded as references.
    progress: called with (samples done, samples in all).

    Raises:
        InputError: the size does not suit the base, a file became unreadable, or the cache folder takes no files.
    """
    for item in manifest.items:
        if any(side % base.size_multiple for side in item.size):
            raise InputError(f"{base.name} cannot use {item.size[1]}x{item.size[0]} px; choose multiples of {base.size_multiple}.")
        if (item.num_frames - 1) % base.frame_multiple:
            raise InputError(f"{base.name} cannot use {item.name} with {item.num_frames} frames; choose {base.frame_multiple} * k + 1.")
    paths = [Path(cache_dir) / f"{_key(base, item, condition_frames)}.safetensors" for item in manifest.items]
    prepared: dict[int, PreparedItem] = {}

    def keep(index: int, tensors: dict[str, torch.Tensor]) -> None:
        optional = tensors.get("conditions"), tensors.get("mask")
        item = manifest.items[index]
        prepared[index] = PreparedItem(tensors["latents"], tensors["text"], *optional, item.name, item.fingerprint)
        if progress:
            progress(len(prepared), len(paths))

    for index, (item, path) in enumerate(zip(manifest.items, paths, strict=True)):
        tensors = _read(path, base, item, condition_frames)
        if tensors is not None:
            keep(index, tensors)
    missing = [index for index in range(len(paths)) if index not in prepared]
    if missing:
        captions = dict.fromkeys(manifest.items[index].caption for index in missing)
        with base.encoders(), torch.no_grad():  # captions first: the text encoder need not stay beside the others
            texts = {caption: base.encode_text(caption).detach().cpu().contiguous().clone() for caption in captions}
            for index in missing:
                item = manifest.items[index]
                tensors = {"text": texts[item.caption], **_encode(base, item, condition_frames)}
                with atomic_path(paths[index]) as temporary:
                    temporary.write_bytes(save_tensors(tensors))
                keep(index, tensors)
    fingerprints = tuple(dict.fromkeys(item.fingerprint for item in manifest.items))
    cut = json.dumps([[item.fingerprint, item.settings_key(), item.caption] for item in manifest.items])
    items = [prepared[index] for index in range(len(paths))]
    return PreparedSet(items, fingerprints, hashlib.sha256(cut.encode()).hexdigest())


def shrink_mask(mask: torch.Tensor, latent_shape: tuple[int, ...]) -> torch.Tensor:
    """Mean over each latent cell; in time, the frame nearest to each latent frame.

    mask: (F, 1, H, W) -> (1, f, h, w).
    """
    num_frames, height, width = latent_shape[-3:]
    nearest = evenly_spread(mask.shape[0], num_frames)
    return torch.nn.functional.adaptive_avg_pool2d(mask[nearest], (height, width)).transpose(0, 1).contiguous()


def _encode(base: Base, item: Item, condition_frames: int) -> dict[str, torch.Tensor]:
    frames, mask = item.load()
    tensors = {"latents": base.encode_frames(frames).detach().float().cpu().contiguous()}
    if not tensors["latents"].isfinite().all():
        raise RuntimeError(f"{base.name} encodes {item.name} to values that are not finite; run its encoders in a wider precision.")
    if _needs_conditions(base, item):
        chosen = frames[evenly_spread(len(frames), condition_frames)]
        embeddings = [base.embed_image(frame).detach().float().cpu() for frame in chosen]
        tensors["conditions"] = torch.stack(embeddings)  # (K, E)
    if mask is not None:
        tensors["mask"] = shrink_mask(mask, tensors["latents"].shape)
    return tensors


def _needs_conditions(base: Base, item: Item) -> bool:
    return item.num_frames > 1 and base.condition_dim is not None


def _key(base: Base, item: Item, condition_frames: int) -> str:
    parts = [CACHE_VERSION, item.fingerprint, item.settings_key(), item.caption, base.fingerprint]
    if _needs_conditions(base, item):
        parts += [condition_frames, base.condition_dim]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(path: Path, base: Base, item: Item, condition_frames: int) -> dict[str, torch.Tensor] | None:
    """The cached tensors; None when absent, damaged, or not what this base would give."""
    try:
        tensors = load_tensors(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    expected = base.latent_shape(item.num_frames, *item.size)
    if "text" not in tensors or "latents" not in tensors or tuple(tensors["latents"].shape) != tuple(expected):
        return None
    if _needs_conditions(base, item):
        shape = tuple(tensors["conditions"].shape) if "conditions" in tensors else None
        if shape != (condition_frames, base.condition_dim):
            return None
    return tensors
