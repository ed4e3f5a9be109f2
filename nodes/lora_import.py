"""LoRA files, in the key namings that ComfyUI and the core know, as one side of a pair."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from safetensors import SafetensorError

from ..dualreal_core.errors import InputError
from ..dualreal_core.families.expert_names import named_expert, split_experts
from ..dualreal_core.families.lora_names import lora_names
from ..dualreal_core.files.digest import file_digest
from ..dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from ..dualreal_core.method.pair import Role, base_sizes
from ..dualreal_core.storage.lora import LoraLayer, layers_of
from ..dualreal_core.storage.lora_strength import LoraStrength
from .model_file import model_file
from .patching import diffusion_model
from .types import TrainedPair

DIT = "diffusion_model."
DOTTED_PREFIXES = ("", DIT, "transformer.", "base_model.model.", "base_model.model.transformer.", "unet.", "model.")
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
TEXT_ENCODER_PREFIXES = ("lora_te", "text_encoder", "text_model", "clip_", "t5xxl.", "llama.")
DORA_MARKS = (".dora_scale", "lora_magnitude_vector")
BIAS_KEY = re.compile(r"\.lora_(?:A|B|down|up)(?:\.default)?\.bias$")
NUM_SHOWN = 3
TRIGGER_FIELD = "modelspec.trigger_phrase"
UNREADABLE = (SafetensorError, pickle.UnpicklingError, OSError, EOFError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)
STOCK = "apply it with the stock LoRA loader instead"

Target = str | tuple
"""A weight's key in ComfyUI's model; or that, and (dimension, start, length) of the part that is meant."""


def import_lora(model: ModelPatcher, path: Path, role: Role, expert: str | None = None) -> tuple[TrainedPair, str]:
    """A pair whose side `role` is the LoRA, and a sentence on what of the file is left out, empty where nothing is.

    At an even blend it acts as ComfyUI's own loader at strength 1, except that alpha also counts where only the metadata have it,
    and that what it does to sound (LTX-2, MiniMax-H3) has a strength of its own, 0 by default.

    Args:
        expert: which of two the MODEL is; None: by the name of its file. It decides what is taken of a file that holds LoRAs of both.

    Raises:
        InputError: the file is no LoRA of this model, or more than low-rank updates of linear layers in blocks.
    """
    transformer = diffusion_model(model)
    tensors, metadata, notes = _read(path)
    tensors, others = _of_expert(path, tensors, expert or named_expert(model_file(model)))
    notes += others
    strength = LoraStrength.of(path, metadata)
    if strength.is_dora:
        raise InputError(f"{path.name} is a DoRA (by its configuration), whose effect cannot be weighed: {STOCK}.")
    with torch.inference_mode(False):
        pair = one_sided_pair(transformer, role, _updates(tensors, model, strength), path.name)
    header = {"source": path.name, "training": {"lora": path.name, "sha256": file_digest(path)}}
    if metadata.get(TRIGGER_FIELD):
        header["prompts"] = {"trigger" if role == "identity" else role: metadata[TRIGGER_FIELD]}
    note = f"{path.name}: left out {'; '.join(notes)}." if notes else ""
    if note:
        logging.info(note)
    return TrainedPair(pair.requires_grad_(False), header), note


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str], list[str]]:
    """Tensors that change the diffusion model, the metadata, and what was left out; code in the file is not executed.

    Raises:
        InputError: the file is damaged, or holds no tensors that change a diffusion model.
    """
    try:
        tensors, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
        tensors = comfy.lora_convert.convert_lora(dict(tensors))
    except UNREADABLE as error:
        raise InputError(f"{path.name} is no complete LoRA file (damaged, or something else): use another copy.") from error
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith(TEXT_ENCODER_PREFIXES)}
    if tensors and not own:
        raise InputError(f"{path.name} changes the text encoder alone: give a LoRA of the video model, or {STOCK}.")
    if not own or not all(isinstance(tensor, torch.Tensor) for tensor in own.values()):
        raise InputError(f"{path.name} is no LoRA file (it holds no tensors, or more than tensors): use another one.")
    notes = [f"{_count(len(tensors) - len(own), 'tensor')} of a text encoder"] if len(own) < len(tensors) else []
    empty = [layer for layer in layers_of(own).values() if layer.is_empty]
    if empty:
        parts = {id(tensor) for layer in empty for tensor in layer.tensors()}
        own = {key: tensor for key, tensor in own.items() if id(tensor) not in parts}
        notes.append(f"{_count(len(empty), 'layer')} of rank 0, without effect ({_some([layer.name for layer in empty])})")
        if not own:
            raise InputError(f"{path.name} changes nothing: all of its {len(empty)} layers have rank 0; use another file.")
    zeros = [key for key in own if BIAS_KEY.search(key) and not own[key].any()]
    return {key: tensor for key, tensor in own.items() if key not in zeros}, metadata or {}, notes


def experts_in(path: Path) -> tuple[str, ...]:
    """The experts for which a LoRA file holds parts of their own, by its keys.

    Raises:
        InputError: the file is damaged, or no LoRA file.
    """
    return tuple(split_experts(_read(path)[0]))


def _of_expert(path: Path, tensors: dict[str, torch.Tensor], expert: str | None) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What belongs to an expert, and what was left out.

    Raises:
        InputError: the file holds LoRAs of both, and which one is meant is not known.
    """
    parts = split_experts(tensors)
    if not parts:
        return tensors, []
    if len(parts) == 1:
        return next(iter(parts.values())), []
    if expert not in parts:
        raise InputError(f"{path.name} holds LoRAs of both experts of a model ({' and '.join(parts)}): use Load LoRAs (two experts).")
    return parts.pop(expert), [f"{_count(len(part), 'tensor')} of the {other} expert" for other, part in parts.items()]


def _key_map(model: ModelPatcher) -> dict[str, Target]:
    """Every name by which a LoRA file may call a weight: those that ComfyUI knows, and those of the family."""
    names = dict(comfy.lora.model_lora_keys_unet(model.model, {}))
    for name, rows in lora_names(diffusion_model(model)).items():
        weight = f"{DIT}{rows.path}.weight"
        target = weight if rows.is_whole else (weight, (0, rows.first_row, rows.num_rows))
        for prefix in DOTTED_PREFIXES:
            names.setdefault(prefix + name, target)
        for prefix in FLAT_PREFIXES:
            names.setdefault(prefix + name.replace(".", "_"), target)
    return names


def _updates(tensors: dict[str, torch.Tensor], model: ModelPatcher, strength: LoraStrength) -> list[LinearUpdate]:
    """Low-rank updates by the layer they are of, alpha folded into `up`.

    Raises:
        InputError: some tensor is of another model, or anything else than a plain LoRA.
    """
    file = strength.file
    dora = next((key for key in tensors if key.endswith(DORA_MARKS)), None)
    if dora is not None:
        raise InputError(f"{file} is a DoRA ({dora}), whose effect cannot be weighed: {STOCK}.")
    layers, key_map = layers_of(tensors), _key_map(model)
    for layer in layers.values():
        strength.alpha(layer)  # damaged ones are named here, ComfyUI would only fail
    try:
        loaded = comfy.lora.load_lora(tensors, key_map, log_missing=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{file} is incomplete or damaged ({error} is missing or unreadable): use another copy.") from error
    if not loaded:
        shown = " and ".join(list(tensors)[:2])
        raise InputError(f"{file} is a LoRA of another model: none of its {len(tensors)} tensors, such as {shown}, belongs to this one.")
    by_up = {id(layer.up): layer for layer in layers.values()}
    updates = [_plain(update, target, by_up, strength) for target, update in loaded.items()]
    used = set().union(*(update.loaded_keys for update in loaded.values()))
    unknown = [key for key in tensors if key not in used]
    if unknown:
        raise InputError(_unmatched(unknown, tensors, model, file))
    broken = next((key for key, tensor in tensors.items() if not tensor.float().isfinite().all()), None)
    if broken is not None:
        raise InputError(f"{file} holds values that are no numbers (NaN or infinite, in {broken}): its training failed; use another one.")
    return updates


def _unmatched(unknown: list[str], tensors: dict[str, torch.Tensor], model: ModelPatcher, file: str) -> str:
    """What to say of tensors that ComfyUI took for none of the model's."""
    biases = [key for key in unknown if BIAS_KEY.search(key)]
    if biases:
        return (
            f"{file} changes biases too ({_count(len(biases), 'tensor')}: {_some(biases)}), which a pair cannot hold and the stock LoRA "
            "loader leaves out: train it anew without biases (lora_bias in peft)."
        )
    sizes = base_sizes(diffusion_model(model))
    layers = layers_of({key: tensors[key] for key in unknown})
    half = next((layer for layer in layers.values() if layer.down is None or layer.up is None), None)
    if half is not None:
        return f"{file} has only one of the two matrices of {half.name}: it is incomplete; use another copy."
    others = [key for key in unknown if not layers_of({key: tensors[key]}) and key.removesuffix(".alpha") not in layers]
    return (
        f"{len(unknown)} of the {len(tensors)} tensors of {file} belong to no layer of this model ({sizes['family']}, "
        f"{sizes['num_blocks']} blocks of width {sizes['dim']}): {_some([*layers, *others])}. Use the model that the LoRA was made for; "
        "the stock LoRA loader would leave them out here and apply the rest."
    )


def _plain(update: WeightAdapterBase | tuple, target: Target, by_up: dict[int, LoraLayer], strength: LoraStrength) -> LinearUpdate:
    """ComfyUI's update of a weight in our form, where it is a plain LoRA of a linear layer or of its first rows."""
    file = strength.file
    key, part = (target, None) if isinstance(target, str) else target[:2]
    if not isinstance(update, LoRAAdapter):
        kind = update.name if isinstance(update, WeightAdapterBase) else f"plain {update[0]!r}"
        raise InputError(f"{file} changes {key} by a {kind} update, which is no low-rank one of a linear layer: {STOCK}.")
    up, down, _, mid, _, reshape = update.weights
    layer = by_up.get(id(up))
    is_convolution = min(up.ndim, down.ndim) < 2 or max(up.shape[2:] + down.shape[2:], default=1) > 1
    if layer is None or mid is not None or reshape is not None or is_convolution:
        raise InputError(f"{file} changes {key} by more than two matrices, as for a convolution: {STOCK}.")
    if part is not None and (len(target) > 2 or part[0] != 0):
        raise InputError(f"{file} changes a part of {key} that adapters cannot reach: {STOCK}.")
    path = key.removeprefix(DIT).removesuffix(".weight")
    return LinearUpdate(path, down.flatten(1).float(), up.flatten(1).float() * strength.scaling(layer), None if part is None else part[1:])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"


def _some(names: list[str]) -> str:
    rest = len(names) - NUM_SHOWN
    return ", ".join(names[:NUM_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
