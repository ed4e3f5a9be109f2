"""Which part of a pair belongs to a MODEL that is one of two experts, and what to say where the two do not seem to fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath

from comfy.model_patcher import ModelPatcher

from ..dualreal_core.errors import InputError
from ..dualreal_core.families.base_record import base_difference
from ..dualreal_core.families.expert_names import lora_expert, named_expert
from ..dualreal_core.method.experts import base_of_expert, expert_of, is_expert_pair
from ..dualreal_core.method.pair import AdapterPair
from .model_file import model_file
from .patching import diffusion_model

FILE_FIELDS = ("source", "sources", "training")
"""Of a header: where names of the files stand that a pair was made of."""
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


def part_for(pair: AdapterPair, model: ModelPatcher) -> tuple[AdapterPair, str]:
    """What of a pair acts on a MODEL, and a sentence where that is one expert's half.

    Raises:
        InputError: the pair is for two experts, and the name of the MODEL's file does not say which one it is.
    """
    if not is_expert_pair(pair):
        return pair, ""
    file = model_file(model)
    expert = named_expert(file)
    if expert not in pair.config.experts:
        of_file = f" The name of its file, {file}, says neither." if file else ""
        raise InputError(
            f"The pair is for two experts ({' and '.join(pair.config.experts)}), and this is one MODEL: use Apply StageBlender (two "
            f"experts), which takes both.{of_file}"
        )
    return expert_of(pair, pair.config.experts.index(expert)), f"{file}: the {expert} half of the pair acts here."


def differences_from(header: Mapping[str, object], model: ModelPatcher, expert: str | None = None) -> list[str]:
    """Sentences where a pair seems to be of another model than this one.

    Args:
        header: of the pair.
        expert: as which the MODEL is used; None: by the name of its file.
    """
    file = model_file(model)
    expert = expert or named_expert(file)
    of_base = base_difference(base_of_expert(header.get("base"), expert or ""), diffusion_model(model), file)
    files = {name: lora_expert(name) for field in FILE_FIELDS for name in _files(header.get(field), expert or "")}
    of_files = [
        f"{name} is a LoRA of the {named} expert by its name, and acts here on the {expert} one, where it may act weakly or wrongly: load "
        "both experts' LoRAs by Load LoRAs (two experts)."
        for name, named in files.items()
        if expert and named not in (None, expert)
    ]
    return [sentence for sentence in (of_base, *of_files) if sentence]


def _files(value: object, expert: str) -> Iterator[str]:
    """Names of weight files in a part of a header, as far as it is about an expert."""
    if isinstance(value, str) and PurePath(value).suffix.lower() in WEIGHT_SUFFIXES:
        yield value
    elif isinstance(value, Mapping):
        for inner in [value[expert]] if expert in value else value.values():
            yield from _files(inner, expert)
