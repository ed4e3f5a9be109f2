"""A MODEL made ready for training, by ComfyUI's patchers; everything is as before afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ..dualreal_core.errors import InputError
from .frozen_linear import keeping_no_weights
from .fused_rope import with_gradients
from .neighbours import caches, sentence_on_training
from .patching import applied_pairs, diffusion_model


@contextmanager
def ready_to_train(model: ModelPatcher) -> Iterator[ModelPatcher]:
    """A copy of MODEL, loaded in full, on which autograd works; everything is as before afterwards.

    ComfyUI loads weights in inference mode, which autograd refuses. Where its loader can load them again, it does so
    here; where it cannot, the weights are exchanged for equal ones. The copy is of the plain kind of patcher: the dynamic
    one copies weights to the device for the length of a layer's call and never loads them in full.

    Raises:
        InputError: the model is of no known family, carries injections, or ComfyUI cannot load it in full.
    """
    diffusion_model(model)
    with torch.inference_mode():  # training displaces all others, and out of this mode ComfyUI spoils quantized weights that it moves
        comfy.model_management.unload_all_models()
    if model.injections:
        raise InputError(
            f"The MODEL carries {', '.join(model.injections)}, which acts in the model it was made for and not in the copy that is trained "
            "on: load a LoRA with Load LoRA instead of its bypass form, or train on the MODEL without it."
        )
    can_load_again = model.cached_patcher_init is not None
    if model.is_dynamic() and not can_load_again:
        raise InputError(
            "ComfyUI keeps this model's weights in main memory (dynamic VRAM), and the node it comes from cannot load it again for "
            "training: use Load Diffusion Model, or start ComfyUI with --disable-dynamic-vram."
        )
    with torch.inference_mode(False), torch.enable_grad():
        patcher = model.clone(disable_dynamic=True, force_deepcopy=can_load_again)
        if patcher.model.get_dtype_inference() == torch.float16:  # adapter gradients would underflow
            patcher.set_model_compute_dtype(torch.bfloat16)
        patcher.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)  # it would exchange the copy for the compiled model
        patcher.remove_additional_models("multigpu")
        options = patcher.model_options["transformer_options"]
        for kind, by_key in patcher.wrappers.items():
            for key in caches(by_key):
                patcher.remove_wrappers_with_key(kind, key)
        for key in caches(options):
            del options[key]
        if left_out := sentence_on_training(model):
            logging.warning(left_out)
        patcher.model.requires_grad_(False)
        load_to_train(patcher)
        states = {applied.key: applied.start(patcher) for applied in applied_pairs(patcher)}
        options.update(states)
        was_in_training = comfy.model_management.in_training
        comfy.model_management.in_training = True
        patcher.pre_run()
        try:
            with keeping_no_weights(patcher.model.diffusion_model), with_gradients():
                yield patcher
        finally:
            comfy.model_management.in_training = was_in_training
            patcher.cleanup()
            unload(patcher)
            for key, state in states.items():
                state.release()
                del options[key]


def load_to_train(patcher: ModelPatcher) -> None:
    """Loads a patcher of `ready_to_train` in full; again, where another model may have displaced it meanwhile.

    Raises:
        InputError: weights stayed behind.
    """
    models = [patcher, *patcher.get_nested_additional_models()]
    comfy.model_management.load_models_gpu(models, memory_required=1e20, force_full_load=True)
    for loaded in [*models, *patcher.model_patches_models()]:
        _leave_inference_mode(loaded.model)
    elsewhere = {weight.device.type for weight in patcher.model.diffusion_model.parameters()} - {patcher.load_device.type}
    if elsewhere:  # what follows would be computed there
        raise InputError(
            f"ComfyUI left weights of the model on {' and '.join(sorted(elsewhere))}, and training needs all of them on "
            f"{patcher.load_device}: start it with --disable-dynamic-vram, or load a smaller or quantized model."
        )


def unload(patcher: ModelPatcher) -> None:
    """Takes a patcher of `ready_to_train` off the device, until it is loaded again."""
    comfy.model_management.unload_model_and_clones(patcher)


def call_options(patcher: ModelPatcher) -> dict:
    """Options for a call of the model outside sampling, with the wrappers that other nodes put on the MODEL."""
    options = comfy.utils.deepcopy_list_dict(patcher.model_options["transformer_options"])
    comfy.patcher_extension.merge_nested_dicts(options.setdefault("wrappers", {}), patcher.wrappers, copy_dict1=False)
    return options


def _leave_inference_mode(model: nn.Module) -> None:
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None and weight.is_inference():
                module._parameters[name] = nn.Parameter(weight.clone(), requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = buffer.clone()
