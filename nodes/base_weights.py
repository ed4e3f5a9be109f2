"""The weights of a MODEL as they are without patches, and patches of our own where pairs cannot act."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from comfy.weight_adapter import WeightAdapterBase

from ..dualreal_core.method.layer_forms import FormSum
from ..dualreal_core.storage.lora_file import BesideUpdate, WeightOf, plain
from .patching import Strengths
from .types import BesideWeight

DIT = "diffusion_model."


def weights_of_model(model: ModelPatcher) -> WeightOf:
    """Reads the weights of a MODEL's DiT, from before any patch was put into them, and out of quantized forms."""

    def weight_of(name: str) -> torch.Tensor | None:
        key = DIT + name
        try:
            weight, _, convert = get_key_weight(model.model, key)
        except AttributeError:
            return None
        kept, hooked = model.backup.get(key), model.hook_backup.get(key)
        weight = hooked[0] if hooked is not None else kept.weight if kept is not None else weight
        if weight is None:
            return None
        return plain(weight if convert is None else convert(weight, inplace=False))

    return weight_of


class BesidePatch(WeightAdapterBase):
    """An update of one weight at a constant strength, in ComfyUI's form of such.

    `weights` holds whether it is of a bias, names of the update's state, and its tensors, which ComfyUI may move.
    """

    name = "dualreal"

    def __init__(self, loaded_keys: set[str], weights: tuple[bool, tuple[str, ...], tuple[torch.Tensor, ...]]) -> None:
        self.loaded_keys, self.weights = loaded_keys, weights

    @classmethod
    def of(cls, update: BesideUpdate) -> BesidePatch:
        """The patch for an update."""
        state = {name: tensor.detach() for name, tensor in update.total.state_dict().items()}
        return cls(set(), (update.is_bias, tuple(state), tuple(state.values())))

    def calculate_weight(
        self, weight, key, strength, strength_model, offset, function, intermediate_dtype=torch.float32, original_weight=None
    ) -> torch.Tensor:  # fmt: skip
        """`weight` with the update, as ComfyUI asks for it."""
        is_bias, names, tensors = self.weights
        moved = [comfy.model_management.cast_to_device(tensor, weight.device, torch.float32) for tensor in tensors]
        update = BesideUpdate("", key, tuple(weight.shape), FormSum.of_state(dict(zip(names, moved, strict=True))), is_bias)
        with torch.no_grad():
            delta = update.delta(weight)
        return weight if delta is None else weight.add_(function((strength * delta).to(weight.dtype)))


def with_beside(model: ModelPatcher, beside: Iterable[BesideWeight], strengths: Strengths) -> ModelPatcher:
    """MODEL itself, with what acts at a constant strength patched into its weights; those that it lacks are left out.

    Args:
        model: a clone of one's own.
        strengths: of which those of the sides and of sound count; 0: no patch.
    """
    state = model.model_state_dict(DIT)
    for one in beside:
        key = DIT + one.update.parameter
        strength = getattr(strengths, one.role) * (strengths.audio if one.update.is_audio else 1.0)
        if not strength:
            continue
        if key not in state or tuple(state[key].shape) != one.update.shape:
            logging.warning(f"{one.update.parameter} is not in this model, or of another size: what a LoRA changes there is left out.")
            continue
        if one.update.path == one.update.parameter:
            # ComfyUI patches the weights and biases of layers alone; what stands beside layers is exchanged
            model.add_object_patch(key, changed(model.get_model_object(key), one.update, strength))
        else:
            model.add_patches({key: BesidePatch.of(one.update)}, strength)
    return model


def changed(value: torch.Tensor, update: BesideUpdate, strength: float) -> torch.nn.Parameter:
    """A parameter with an update, in its place and dtype; of 8 bits, which nothing is added in, in float32."""
    dtype = value.dtype if value.dtype.itemsize > 1 else torch.float32
    with torch.inference_mode(False), torch.no_grad():
        own = value.detach().clone().to(dtype)
        delta = update.delta(own)
        return torch.nn.Parameter(own if delta is None else own + (strength * delta).to(dtype), requires_grad=False)
