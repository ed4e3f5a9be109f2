"""The only file that touches ComfyUI's patchers: a pair on a MODEL for sampling, and a MODEL made ready for training.

A pair is hooked into the DiT for the length of each call of it, from a wrapper around that call. So nothing is left on
the module that clones share, order does not matter, and the DiT that a call reaches is the one that is hooked.
"""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.method.attach import Attachment, check_fit
from ..dualreal_core.method.blend import Blend, BlendRecord
from ..dualreal_core.method.pair import ROLES, AdapterPair
from ..dualreal_core.storage.format import digest

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.samplers import CFGGuider

KEY = "dualreal"
NEGATIVE = 1
"""How the host marks the rows of the negative prompt where nothing else tells."""
ADAPTED = ("positive", "middle")
"""The host's names for prompts of what is wanted; it has others for those to keep away from."""
Kind = Literal["wanted", "unwanted", "foreign"]
"""What a list of prompts is for; foreign are those of another model, which some guiders use for a part of the prompts."""
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


@dataclass(frozen=True)
class Denoising:
    """What a schedule of noise says of a pair.

    Attributes:
        start, end: sigmas between which the pair acts, the first one the larger.
        ladder: sigmas at every hundredth of denoising.
    """

    start: float
    end: float
    ladder: tuple[float, ...]

    @classmethod
    def of(cls, model: ModelPatcher, dosage: Dosage) -> Denoising:
        """By the schedule that MODEL has now; nodes behind the one that applied the pair may have changed it."""
        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        start = float(to_sigma(dosage.start_percent)) if dosage.start_percent > 0 else math.inf  # samplers may add noise to the first
        return cls(start, float(to_sigma(dosage.end_percent)), tuple(float(to_sigma(hundredth / 100)) for hundredth in range(101)))

    def covers(self, sigma: float | None) -> bool:
        """Whether the pair acts at a sigma; yes where none is known."""
        return sigma is None or self.end <= sigma <= self.start

    def stage(self, sigma: float | None, schedule: torch.Tensor | None) -> float | None:
        """Position of a sigma in the schedule of S + 1 sigmas, the last of them the end: 0 at its first step, 1 at step S - 1.

        Where a sampler does only a part of denoising (several in a row, or `denoise` below 1), its schedule does not tell, and
        training has none; the position is then the one that training gives such a sigma.
        """
        if sigma is None:
            return None
        listed = [] if schedule is None else schedule.cpu().tolist()
        is_whole = len(listed) > 1 and listed[0] >= self.ladder[WHOLE[0]] and listed[-1] <= self.ladder[WHOLE[1]]
        position = _place(sigma, listed) / max(len(listed) - 2, 1) if is_whole else _place(sigma, self.ladder) / (len(self.ladder) - 1)
        return min(1.0, max(0.0, position))


@dataclass
class AppliedPair:
    """A pair on one MODEL: the wrappers around sampling and the DiT's calls, and the record of the weights it used last.

    While the host trains on the MODEL, hooks stay in place from one call to the next, as blocks are run again for the backward
    pass, and nothing is recorded.

    Attributes:
        name: tells it from other pairs, doses and references; it does not change with the precision it is cast to.
        guider: of the sampling in progress.
        kinds: of each list of prompts in the host's current batch, where it is known.
    """

    pair: AdapterPair
    blend: Blend
    dosage: Dosage
    denoising: Denoising
    condition: torch.Tensor | None
    name: str
    record: BlendRecord = field(default_factory=BlendRecord)
    attachments: dict[nn.Module, Attachment] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    guider: CFGGuider | None = None
    kinds: list[Kind | None] = field(default_factory=list)

    def around_sampling(self, executor: Callable, *args: object, **kwargs: object) -> object:
        """Starts a new record with each sampling, and leaves nothing behind that the host does not count."""
        self.record.clear()
        kept, self.guider = self.guider, executor.class_obj
        _run_uncompiled(self.guider.model_options["transformer_options"])
        self.denoising = Denoising.of(self.guider.model_patcher, self.dosage)
        try:
            return executor(*args, **kwargs)
        finally:
            self.guider = kept
            self.let_go()

    def around_batch(self, executor: Callable, model: BaseModel, prompts: list[list[dict] | None], *args: object) -> object:
        """Notes what the lists of prompts of the calls that follow are for."""
        kept, self.kinds = self.kinds, [self._kind(model, one) for one in prompts]
        try:
            return executor(model, prompts, *args)
        finally:
            self.kinds = kept

    def around_call(self, executor: Callable, latents: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """Runs the DiT with the pair hooked in, or as it is where the pair does not act."""
        transformer, is_training = executor.class_obj, comfy.model_management.in_training
        options = _transformer_options([*args, *kwargs.values()])
        kinds = [self._kind_of(mark) for mark in options.get("cond_or_uncond") or [0]]
        rows_per_kind = max(1, latents.shape[0] // len(kinds))
        sigmas = _by_row(options.get("sigmas"), latents.shape[0])
        places = {sigma: self.denoising.stage(sigma, options.get("sample_sigmas")) for sigma in dict.fromkeys(sigmas)}
        stages = [places[sigma] for sigma in sigmas]
        acting = {"wanted", "unwanted"} if self.dosage.adapts_negative else {"wanted"}
        factors = [
            float(kinds[min(row // rows_per_kind, len(kinds) - 1)] in acting and self.denoising.covers(sigma))
            for row, sigma in enumerate(sigmas)
        ]
        if not any(factors) or self.dosage.strengths == (0.0, 0.0):
            if is_training and transformer in self.attachments:
                self.attachments[transformer].detach()
            elif not is_training and "wanted" in kinds:
                self.record.row = 0
                self.record.add(torch.zeros(1, self.pair.config.num_groups, 2), stages[0])
            return executor(latents, *args, **kwargs)
        attachment = self._attachment(transformer, latents)
        attachment.row_strengths = torch.tensor(factors, device=latents.device)
        attachment.stage = stages[0] if len(set(stages)) == 1 else torch.tensor(stages)
        attachment.record = self.record if "wanted" in kinds and not is_training else None
        self.record.row = kinds.index("wanted") * rows_per_kind if "wanted" in kinds else 0
        if is_training:
            attachment.attach()
            return executor(latents, *args, **kwargs)
        with attachment:
            return executor(latents, *args, **kwargs)

    def let_go(self) -> None:
        """Takes the pair out of every DiT, and drops what was made for it."""
        for attachment in self.attachments.values():
            attachment.detach()
        self.attachments.clear()

    def _kind(self, model: BaseModel, prompts: list[dict] | None) -> Kind | None:
        """What a list of prompts is for, by the name that the guider has for it or for what it was made from."""
        if self.guider is None:
            return None
        if model is not getattr(self.guider, "inner_model", model):
            return "foreign"
        own = {name: listed for name, listed in self.guider.conds.items() if listed is not None}
        name = next((name for name, listed in own.items() if listed is prompts), None)
        if name is None:
            sources = {prompt.get("uuid") for prompt in prompts or ()} - {None}
            name = next((name for name, listed in own.items() if sources & {prompt.get("uuid") for prompt in listed}), None)
        return None if name is None else "wanted" if name in ADAPTED else "unwanted"

    def _kind_of(self, mark: int) -> Kind:
        known = self.kinds[mark] if mark < len(self.kinds) else None
        return known or ("unwanted" if mark == NEGATIVE else "wanted")

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
    given = {**pair.state_dict(), **({} if condition is None else {"condition": condition})}
    name = f"{digest({part: tensor.detach().cpu() for part, tensor in given.items()})} {pair.config} {dosage} {blend}"
    applied = AppliedPair(pair, blend, dosage, Denoising.of(model, dosage), condition, name)
    patched = model.clone()
    others = applied_pairs(model)
    key = f"{KEY}-{len(others)}"
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, applied.around_call)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, applied.around_sampling)
    patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, key, applied.around_batch)
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
        InputError: the model is of no known family, carries injections, or the host cannot load it in full.
    """
    diffusion_model(model)
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
        patcher.model.requires_grad_(False)
        load_to_train(patcher)
        for applied in applied_pairs(patcher):
            applied.denoising = Denoising.of(patcher, applied.dosage)
        was_in_training = comfy.model_management.in_training
        comfy.model_management.in_training = True
        patcher.pre_run()
        try:
            yield patcher
        finally:
            comfy.model_management.in_training = was_in_training
            patcher.cleanup()
            comfy.model_management.unload_model_and_clones(patcher)
            for applied in applied_pairs(patcher):  # their hooks would keep this copy for as long as MODEL lives
                applied.let_go()


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


def _run_uncompiled(options: dict) -> None:
    """Takes a compile node's wrapper out of per-call options: compiled code does not see that hooks come and go."""
    wrappers = options.get("wrappers", {})
    around = wrappers.get(WrappersMP.APPLY_MODEL, {})
    if COMPILE_KEY in around:
        logging.warning("The model runs uncompiled here: a pair cannot act in compiled code.")
        wrappers[WrappersMP.APPLY_MODEL] = {key: wrapper for key, wrapper in around.items() if key != COMPILE_KEY}


def _by_row(sigmas: torch.Tensor | None, num_rows: int) -> list[float | None]:
    """A sigma for each row of a call; the host gives one for all, or those of one prompt's rows."""
    listed = [] if sigmas is None else sigmas.flatten().cpu().tolist()
    return [listed[row % len(listed)] for row in range(num_rows)] if listed else [None] * num_rows


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
