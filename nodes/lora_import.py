"""LoRA files, in the key namings that ComfyUI and the core know, as one side of a pair."""

from __future__ import annotations

import logging
import pickle
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
from ..dualreal_core.families.lora_names import lora_names
from ..dualreal_core.files.digest import file_digest
from ..dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from ..dualreal_core.method.pair import Role
from .patching import diffusion_model
from .types import TrainedPair

DIT = "diffusion_model."
DOTTED_PREFIXES = ("", DIT, "transformer.", "base_model.model.", "base_model.model.transformer.", "unet.", "model.")
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
TEXT_ENCODER_PREFIXES = ("lora_te", "text_encoder", "text_model", "clip_", "t5xxl.", "llama.")
DORA_MARKS = (".dora_scale", "lora_magnitude_vector")
TRIGGER_FIELD = "modelspec.trigger_phrase"
UNREADABLE = (SafetensorError, pickle.UnpicklingError, OSError, EOFError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)
STOCK = "apply it with the stock LoRA loader instead"

Target = str | tuple
"""A weight's key in ComfyUI's model; or that, and (dimension, start, length) of the part that is meant."""


def import_lora(model: ModelPatcher, path: Path, role: Role) -> TrainedPair:
    """A pair whose side `role` is the LoRA. At an even blend it acts as ComfyUI's own loader at strength 1.

    Raises:
        InputError: the file is no LoRA of this model, or more than low-rank updates of linear layers in blocks.
    """
    transformer = diffusion_model(model)
    tensors, metadata = _read(path)
    with torch.inference_mode(False):
        pair = one_sided_pair(transformer, role, _updates(tensors, _key_map(model), path.name), path.name)
    header = {"source": path.name, "training": {"lora": path.name, "sha256": file_digest(path)}}
    if metadata.get(TRIGGER_FIELD):
        header["prompts"] = {"trigger" if role == "identity" else role: metadata[TRIGGER_FIELD]}
    return TrainedPair(pair.requires_grad_(False), header)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    """Tensors of the diffusion model, and the metadata; code in the file is not executed.

    Raises:
        InputError: the file is damaged, or holds no tensors of a diffusion model.
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
    if len(own) < len(tensors):
        logging.info("%s: left out its %d tensors of a text encoder.", path.name, len(tensors) - len(own))
    return own, metadata or {}


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


def _updates(tensors: dict[str, torch.Tensor], key_map: dict[str, Target], file: str) -> list[LinearUpdate]:
    """Low-rank updates by the layer they are of, alpha folded into `up`.

    Raises:
        InputError: some tensor is of another model, or anything else than a plain LoRA.
    """
    dora = next((key for key in tensors if key.endswith(DORA_MARKS)), None)
    if dora is not None:
        raise InputError(f"{file} is a DoRA ({dora}), whose effect cannot be weighed: {STOCK}.")
    try:
        loaded = comfy.lora.load_lora(tensors, key_map, log_missing=False)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{file} is incomplete or damaged ({error} is missing or unreadable): use another copy.") from error
    if not loaded:
        shown = " and ".join(list(tensors)[:2])
        raise InputError(f"{file} is a LoRA of another model: none of its {len(tensors)} tensors, such as {shown}, belongs to this one.")
    updates = [_plain(update, target, file) for target, update in loaded.items()]
    used = set().union(*(update.loaded_keys for update in loaded.values()))
    unknown = [key for key in tensors if key not in used]
    bias = next((key for key in unknown if key.endswith("lora_B.bias")), None)
    if bias is not None:
        raise InputError(f"{file} changes biases too ({bias}), which adapters cannot reach: {STOCK}.")
    if unknown:
        raise InputError(
            f"{len(unknown)} of the {len(tensors)} tensors of {file} belong to no layer of this model, {unknown[0]} for one: use the model "
            f"that the LoRA was made for, or, if it is this one, {STOCK}, which leaves them out."
        )
    broken = next((key for key, tensor in tensors.items() if not tensor.float().isfinite().all()), None)
    if broken is not None:
        raise InputError(f"{file} holds values that are no numbers (NaN or infinite, in {broken}): its training failed; use another one.")
    return updates


def _plain(update: WeightAdapterBase | tuple, target: Target, file: str) -> LinearUpdate:
    """ComfyUI's update of a weight in our form, where it is a plain LoRA of a linear layer or of its first rows."""
    key, part = (target, None) if isinstance(target, str) else target[:2]
    if not isinstance(update, LoRAAdapter):
        kind = update.name if isinstance(update, WeightAdapterBase) else f"plain {update[0]!r}"
        raise InputError(f"{file} changes {key} by a {kind} update, which is no low-rank one of a linear layer: {STOCK}.")
    up, down, alpha, mid, _, reshape = update.weights
    if mid is not None or reshape is not None or min(up.ndim, down.ndim) < 2 or max(up.shape[2:] + down.shape[2:], default=1) > 1:
        raise InputError(f"{file} changes {key} by more than two matrices, as for a convolution: {STOCK}.")
    if part is not None and (len(target) > 2 or part[0] != 0):
        raise InputError(f"{file} changes a part of {key} that adapters cannot reach: {STOCK}.")
    scaling = 1.0 if alpha is None else alpha / down.shape[0]
    path = key.removeprefix(DIT).removesuffix(".weight")
    return LinearUpdate(path, down.flatten(1).float(), up.flatten(1).float() * scaling, None if part is None else part[1:])
