"""The only file that touches ComfyUI's patchers: a pair on a MODEL for sampling, and a MODEL made ready for training.

A pair is hooked into the DiT for the length of each call of it, from a wrapper around that call. So nothing is left on
the module that clones share, order does not matter, and the DiT that a call reaches is the one that is hooked.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import nn

from ..dualreal_core.attach import Attachment, check_fit
from ..dualreal_core.blend import Blend, BlendRecord
from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.pair import ROLES, AdapterPair

KEY = "dualreal"
NEGATIVE = 1
"""How the host marks the rows of the negative prompt."""
WHOLE = (5, 95)
"""A schedule that reaches from before the first to behind the second hundredth of denoising is a whole one."""


@dataclass(frozen=True)
class Dosage:
    """How much of a pair acts, and when.

    Attributes:
        strengths: factors on the identity and the motion weights.
        start_percent, end_percent: the part of denoising in which the pair acts.
        adapts_negative: whether it also acts on the rows of the negative prompt.
    """

    strengths: tuple[float, float] = (1.0, 1.0)
    start_percent: float = 0.0
    end_percent: float = 1.0
    adapts_negative: bool = False


@dataclass
class AppliedPair:
    """A pair on one MODEL: the wrapper around the DiT's calls, and the record of the weights it used last.

    Attributes:
        sigmas: between which it acts, the first one the larger.
        ladder: sigmas at every hundredth of denoising.
    """

    pair: AdapterPair
    blend: Blend
    dosage: Dosage
    sigmas: tuple[float, float]
    ladder: tuple[float, ...]
    condition: torch.Tensor | None
    record: BlendRecord = field(default_factory=BlendRecord)
    attachments: WeakKeyDictionary[nn.Module, Attachment] = field(default_factory=WeakKeyDictionary)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def around_sampling(self, executor: Callable, *args: object, **kwargs: object) -> object:
        """Starts a new record with each sampling, and leaves no weights behind that the host does not count."""
        self.record.clear()
        try:
            return executor(*args, **kwargs)
        finally:
            for attachment in self.attachments.values():
                attachment.forget()

    def around_call(self, executor: Callable, latents: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """Runs the DiT with the pair hooked in, or as it is where the pair does not act."""
        options = _transformer_options([*args, *kwargs.values()])
        sigma = _first(options.get("sigmas"))
        stage = _stage(sigma, options.get("sample_sigmas"), self.ladder)
        marks = options.get("cond_or_uncond") or [0]
        is_due = sigma is None or self.sigmas[1] <= sigma <= self.sigmas[0]
        factors = [1.0 if self.dosage.adapts_negative or mark != NEGATIVE else 0.0 for mark in marks]
        if not is_due or not any(factors) or self.dosage.strengths == (0.0, 0.0):
            if any(mark != NEGATIVE for mark in marks):
                self.record.row = 0
                self.record.add(torch.zeros(1, self.pair.config.num_groups, 2), stage)
            return executor(latents, *args, **kwargs)
        attachment = self._attachment(executor.class_obj, latents)
        rows_per_mark = latents.shape[0] // len(marks)
        attachment.row_strengths = torch.tensor(factors, device=latents.device).repeat_interleave(rows_per_mark)
        attachment.stage = stage
        watched = next((index for index, mark in enumerate(marks) if mark != NEGATIVE), None)
        attachment.record = self.record if watched is not None else None
        self.record.row = 0 if watched is None else watched * rows_per_mark
        with attachment:
            return executor(latents, *args, **kwargs)

    def _attachment(self, transformer: nn.Module, latents: torch.Tensor) -> Attachment:
        """The pair's hooks for this DiT, its weights where and in what precision the latents are."""
        with self.lock:
            if transformer not in self.attachments:
                # a DiT on another device gets weights of its own: several may be called at once
                pair = copy.deepcopy(self.pair) if len(self.attachments) else self.pair
                attachment = Attachment(transformer, pair, self.blend)
                attachment.detach()
                attachment.strengths = dict(zip(ROLES, self.dosage.strengths, strict=True))
                self.attachments[transformer] = attachment
            attachment = self.attachments[transformer]
        move_pair(attachment.pair, latents.device, latents.dtype)
        if self.condition is not None:
            attachment.condition = self.condition.to(latents)
        return attachment


def apply_pair(
    model: ModelPatcher, pair: AdapterPair, blend: Blend, dosage: Dosage, condition: torch.Tensor | None = None
) -> ModelPatcher:
    """A clone of MODEL on which the pair acts, beside any pairs it already has.

    Args:
        pair: becomes the clone's own: give a copy.
        condition: reference embedding (1, E) for conditioned sides.

    Raises:
        InputError: the pair does not fit the model.
    """
    check_fit(diffusion_model(model), pair)
    sampling = model.get_model_object("model_sampling")
    sigmas = tuple(float(sampling.percent_to_sigma(percent)) for percent in (dosage.start_percent, dosage.end_percent))
    ladder = tuple(float(sampling.percent_to_sigma(hundredth / 100)) for hundredth in range(101))
    applied = AppliedPair(pair, blend, dosage, sigmas, ladder, condition)
    patched = model.clone()
    others = applied_pairs(model)
    key = f"{KEY}-{len(others)}"
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, applied.around_call)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, applied.around_sampling)
    patched.set_additional_models(key, [ModelPatcher(pair, model.load_device, model.offload_device)])
    patched.set_attachments(KEY, (*others, applied))
    return patched


def applied_pairs(model: ModelPatcher) -> tuple[AppliedPair, ...]:
    """The pairs that act on a MODEL, in the order in which they were applied."""
    return model.get_attachment(KEY) or ()


def call_options(patcher: ModelPatcher) -> dict:
    """Options for a call of the model outside sampling, with the wrappers that other nodes put on the MODEL."""
    options = comfy.utils.deepcopy_list_dict(patcher.model_options["transformer_options"])
    comfy.patcher_extension.merge_nested_dicts(options.setdefault("wrappers", {}), patcher.wrappers, copy_dict1=False)
    return options


def diffusion_model(model: ModelPatcher) -> nn.Module:
    """The DiT of a MODEL.

    Raises:
        InputError: it is of no family that pairs can be made for.
    """
    transformer = model.get_model_object("diffusion_model")
    family_of(transformer)
    return transformer


def move_pair(pair: AdapterPair, device: torch.device, dtype: torch.dtype) -> None:
    """Puts the adapters on a device and in a precision; the controller stays in float32."""
    side = next(iter(pair.sides.values()))
    weight = next(side.parameters())
    if (weight.device, weight.dtype) != (device, dtype):
        pair.sides.to(device=device, dtype=dtype)
        if pair.controller is not None:
            pair.controller.to(device=device)


@contextmanager
def ready_to_train(model: ModelPatcher) -> Iterator[ModelPatcher]:
    """A copy of MODEL, loaded in full, on which autograd works; everything is as before afterwards.

    The host loads weights in inference mode, which autograd refuses. Where its loader can load them again, it does so
    here; where it cannot, the weights are exchanged for equal ones. The copy is of the plain kind of patcher: the dynamic
    one copies weights to the device for the length of a layer's call and never loads them in full.

    Raises:
        InputError: the model is of no known family, or the host cannot load it in full.
    """
    diffusion_model(model)
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
        patcher.model.requires_grad_(False)
        load_to_train(patcher)
        was_in_training = comfy.model_management.in_training
        comfy.model_management.in_training = True
        patcher.pre_run()
        try:
            yield patcher
        finally:
            comfy.model_management.in_training = was_in_training
            patcher.cleanup()
            comfy.model_management.unload_model_and_clones(patcher)
            if can_load_again:  # hooks of a pair that MODEL carries would keep this copy for as long as it lives
                for applied in applied_pairs(patcher):
                    applied.attachments.pop(patcher.model.diffusion_model, None)


def load_to_train(patcher: ModelPatcher) -> None:
    """Loads a patcher of `ready_to_train` in full; again, where another model may have displaced it meanwhile.

    Raises:
        InputError: weights stayed behind.
    """
    models = [patcher, *patcher.get_nested_additional_models()]
    comfy.model_management.load_models_gpu(models, memory_required=1e20, force_full_load=True)
    _leave_inference_mode(patcher.model)
    elsewhere = {weight.device.type for weight in patcher.model.diffusion_model.parameters()} - {patcher.load_device.type}
    if elsewhere:  # what follows would be computed there
        raise InputError(
            f"ComfyUI left weights of the model on {' and '.join(sorted(elsewhere))}, and training needs all of them on "
            f"{patcher.load_device}: start it with --disable-dynamic-vram, or load a smaller or quantized model."
        )


def _leave_inference_mode(model: nn.Module) -> None:
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None and weight.is_inference():
                module._parameters[name] = nn.Parameter(weight.clone(), requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = buffer.clone()


def _transformer_options(values: list[object]) -> dict:
    """The host's per-call options; their place among the arguments differs by model."""
    return next((value for value in values if isinstance(value, dict) and "sigmas" in value), {})


def _first(sigmas: torch.Tensor | None) -> float | None:
    return None if sigmas is None or sigmas.numel() == 0 else float(sigmas.flatten()[0])


def _stage(sigma: float | None, schedule: torch.Tensor | None, ladder: Sequence[float]) -> float | None:
    """Position of a sigma in the schedule of S + 1 sigmas, the last of them the end: 0 at its first step, 1 at step S - 1.

    Where a sampler does only a part of denoising (several in a row, or `denoise` below 1), its schedule does not tell; the
    position is then the one that training gives such a sigma.
    """
    if sigma is None or schedule is None or len(schedule) < 2:
        return None
    listed = [float(value) for value in schedule]
    is_whole = listed[0] >= ladder[WHOLE[0]] and listed[-1] <= ladder[WHOLE[1]]
    position = _place(sigma, listed) / max(len(listed) - 2, 1) if is_whole else _place(sigma, ladder) / (len(ladder) - 1)
    return min(1.0, max(0.0, position))


def _place(sigma: float, listed: Sequence[float]) -> float:
    """Index of a sigma in a falling list; in between, as samplers also call between listed sigmas, interpolated."""
    place = next((index for index, value in enumerate(listed) if value <= sigma), len(listed) - 1)
    if place == 0 or listed[place] == sigma:
        return float(place)
    return place - (sigma - listed[place]) / max(listed[place - 1] - listed[place], 1e-12)


def reject_nan(tensor: torch.Tensor, what: str) -> None:
    """Raises InputError where a tensor holds what is no number."""
    if not torch.isfinite(tensor).all():
        raise InputError(f"{what} hold values that are no numbers (NaN or infinite): encode them again, in another precision.")
