"""What other nodes put on a MODEL that a pair does not get along with, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from ..dualreal_core.families import family_of
from ..dualreal_core.method.coverage import Place, name_places

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

BLOCK_NAMES = ("double_block", "single_block")
"""ComfyUI's names for the blocks of a DiT's first and second list, where others replace them."""
CACHE_MARK = "cache"
"""In the keys of wrappers, and of states in the options, that answer a call of the model from earlier ones."""
CACHE_NAMES = {"easycache": "EasyCache", "lazycache": "LazyCache"}


def caches(keys: Iterable[object]) -> list[str]:
    """Which of these keys, of wrappers or of options, are of what answers calls of the model from earlier ones."""
    return list(dict.fromkeys(key for key in keys if isinstance(key, str) and CACHE_MARK in key.lower()))


def sentence_on_training(model: ModelPatcher) -> str:
    """What of a MODEL's surroundings is left out while it is trained on; empty where nothing is."""
    names = [CACHE_NAMES.get(key, key) for key in caches(key for by_key in model.wrappers.values() for key in by_key)]
    sentences = [f"Trained without {' and '.join(names)}: training needs each call of the model itself."] if names else []
    if "model_function_wrapper" in model.model_options:
        sentences.append("Trained without the function that another node put around the model's calls.")
    return " ".join(sentences)


def sentence_on_places(transformer: nn.Module, places: Sequence[Place], replaced: Mapping[tuple, Callable]) -> str:
    """Names places of a DiT that it stepped past, the patch or the weights that are the likely reason, and what to do.

    Args:
        replaced: what is called in place of blocks, by ComfyUI's names for these.
    """
    first = places[0]
    whole = f"The pair acts on {name_places(places)}, which the MODEL computes without calling it, so the pair would be left out there"
    patch = replaced.get(_block_key(transformer, first))
    if patch is not None:
        named = patch if hasattr(patch, "__qualname__") else type(patch)
        return (
            f"{whole}: {first.block} is replaced by {named.__qualname__} of {named.__module__}. Take away the node between the loader and "
            "the sampler that put it there."
        )
    weight = getattr(transformer.get_submodule(first.path), "weight", None)
    layout = getattr(weight, "_layout_cls", None)
    if layout is not None:
        return f"{whole}: its weights are quantized ({layout}). Load the model in another format, such as bf16 or fp8."
    return f"{whole}. Take away the node between the loader and the sampler that fuses its layers or replaces its blocks."


def _block_key(transformer: nn.Module, place: Place) -> tuple[str, int]:
    path, _, number = place.block.rpartition(".")
    lists = [block_list.path for block_list in family_of(transformer).block_lists]
    return BLOCK_NAMES[lists.index(path)], int(number)
