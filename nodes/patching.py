"""A pair on a MODEL, by ComfyUI's patchers; beside `pair_patcher` and `training_model` the only file that touches them.

A pair is in the DiT for the length of each call of the model, from a wrapper around that call. So nothing is left on the module that
clones share, order does not matter, and the DiT that a call reaches is the one that has the pair in it.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import get_executing_context
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.method.attach import Attachment, check_fit
from ..dualreal_core.method.blend import Blend, BlendRecord, LearnedBlend
from ..dualreal_core.method.pair import AdapterPair
from ..dualreal_core.method.placement import is_placed, placed
from ..dualreal_core.storage.format import digest
from .blend_used import tell_page
from .denoising_stage import NoiseSchedule, sigmas_of_rows
from .neighbours import sentence_on_places
from .pair_patcher import patcher_of
from .sampled_part import MAX_PARTS, SampledPart, latent_mark

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.samplers import CFGGuider

KEY = "dualreal"
NEGATIVE = 1
"""How ComfyUI marks the rows of the negative prompt where nothing else tells."""
ADAPTED = ("positive", "middle")
"""ComfyUI's names for prompts of what is wanted; it has others for those to keep away from."""
NO_NEGATIVE = (
    "The negative prompt was not computed, as at cfg 1, so negative 'plain base' did nothing: no guidance strengthens the pair. Where it "
    "acts too weakly, raise identity_strength and motion_strength."
)
Kind = Literal["wanted", "unwanted", "foreign"]
"""What a list of prompts is for; foreign are those of another model, which some guiders use for a part of the prompts."""


@dataclass(frozen=True)
class Strengths:
    """How much of a pair acts, and when.

    Attributes:
        identity, motion: factors on the weights of the two sides.
        start_percent, end_percent: the part of denoising in which the pair acts.
        adapts_negative: whether it also acts on the rows of the negative prompt.
        audio: factor on the weights of what it does to the sound, in models that have one.
    """

    identity: float = 1.0
    motion: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    adapts_negative: bool = False
    audio: float = field(default=0.0, repr=False)  # so that runs on a MODEL with a pair keep their names


@dataclass(eq=False)
class AppliedPair:
    """A pair on one MODEL and on all its clones, with ComfyUI's wrappers around sampling and the DiT's calls.

    What changes while sampling lies in a `PairState`, which the calls find in their `transformer_options` under `key`.

    Attributes:
        blend: None for the pair's own.
        condition: reference embedding (1, E) for conditioned sides.
        schedule: of the MODEL when the pair was applied; calls outside of any sampling go by it.
        parts: what the last samplings used, each a part of denoising or all of it; one list for both experts of a model.
    """

    key: str
    pair: AdapterPair
    blend: Blend | None
    strengths: Strengths
    condition: torch.Tensor | None
    schedule: NoiseSchedule
    parts: list[SampledPart] = field(default_factory=list)

    @cached_property
    def name(self) -> str:
        """Tells it from other pairs, strengths and references, whatever precision it is cast to; takes seconds for large pairs."""
        given = {**self.pair.state_dict(), **({} if self.condition is None else {"condition": self.condition})}
        weights = digest({part: tensor.detach().cpu() for part, tensor in given.items()})
        audio = f" audio {self.strengths.audio}" if self.strengths.audio else ""
        return f"{weights} {self.pair.config} {self.strengths} {self.blend}{audio}"

    def start(self, model: ModelPatcher, guider: CFGGuider | None = None) -> PairState:
        """A fresh state, by the schedule that MODEL has now; nodes behind the one that applied the pair may have changed it."""
        return PairState(self, _schedule(model, self.strengths), guider, model)

    def outer_sample_wrapper(
        self, executor: Callable, noise: torch.Tensor, latent_image: torch.Tensor, sampler: object, sigmas: torch.Tensor,
        *args: object, **kwargs: object,
    ) -> torch.Tensor:  # fmt: skip
        """Gives each sampling a state of its own, and keeps what it used.

        noise, latent_image: (B, C, f, h, w), or such of video and sound as one nested tensor; sigmas: (S + 1,)
        """
        guider = executor.class_obj
        options = guider.model_options["transformer_options"]  # those of this sampling alone
        around = options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {})
        if self.key in around:  # to be inside of others, which may exchange the DiT or its blocks for compiled ones
            around[self.key] = around.pop(self.key)
        state = options[self.key] = self.start(guider.model_patcher, guider)
        try:
            made = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            state.check_whole(sigmas)
        finally:
            state.release()
        if state.record.calls:
            start, end, context = float(sigmas[0]), float(sigmas[-1]), get_executing_context()
            marks, prompt = (latent_mark(latent_image), latent_mark(made)), context.prompt_id if context else ""
            part = SampledPart(*marks, start, end, state.schedule.stage(end), state.record, prompt, note=state.note_on_negative())
            self.parts[:] = [*self.parts, part][-MAX_PARTS:]
            if part.note:
                logging.info(part.note)
            tell_page(self.blend, state.record, state.schedule, prompt)
        return made

    def calc_cond_batch_wrapper(
        self, executor: Callable, model: BaseModel, prompts: list[list[dict] | None], latents: torch.Tensor, timestep: torch.Tensor,
        model_options: dict,
    ) -> object:  # fmt: skip
        """Tells the calls that follow what each list of prompts is for. latents: (B, C, f, h, w), timestep: (B,), for each list."""
        options = model_options.get("transformer_options", {})
        state = options.get(self.key)
        if state is not None:
            known = replace(state, kinds=tuple(state.kind_of(model, one) for one in prompts))
            model_options = {**model_options, "transformer_options": {**options, self.key: known}}
        return executor(model, prompts, latents, timestep, model_options)

    def apply_model_wrapper(self, executor: Callable, latents: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        """Calls the model with the pair in its DiT, or as it is where the pair does not act.

        The DiT, or parts of it, may be compiled: the pair is in what is compiled. While ComfyUI trains on the MODEL, the pair stays in
        place from one call to the next, as blocks are run again for the backward pass, and nothing is recorded.

        latents: (B, C, f, h, w), or (B, 1, N) of video and sound, B / n rows for each of the n lists of prompts in this call -> the same
        """
        model, is_training, num_rows = executor.class_obj, comfy.model_management.in_training, latents.shape[0]
        options = next((value for value in [*args, *kwargs.values()] if isinstance(value, dict) and "sigmas" in value), {})
        state = options.get(self.key) or PairState(self, self.schedule)
        state.reached.set()
        marks = options.get("cond_or_uncond") or [0]
        rows_per_mark = max(1, num_rows // len(marks))
        kinds = [state.kind_at(marks[min(row // rows_per_mark, len(marks) - 1)]) for row in range(num_rows)]
        state.met.update(kinds)
        sigmas = sigmas_of_rows(options.get("sigmas"), num_rows)
        stages = [state.schedule.stage(sigma) for sigma in sigmas]
        acting = ("wanted", "unwanted") if self.strengths.adapts_negative else ("wanted",)
        factors = [float(kind in acting and state.schedule.covers(sigma)) for kind, sigma in zip(kinds, sigmas, strict=True)]
        watched = kinds.index("wanted") if "wanted" in kinds and not is_training else None
        if not any(factors) or not (self.strengths.identity or self.strengths.motion):
            if is_training:
                state.release()
            elif watched is not None:
                state.note(torch.zeros(1, self.pair.config.num_groups, 2), stages[watched])
            return executor(latents, *args, **kwargs)
        attachment = state.attachment(model.diffusion_model, latents.device, model.get_dtype_inference())
        attachment.row_strengths = factors
        levels = [state.schedule.noise_level(sigma) for sigma in sigmas]
        attachment.move_to(*((stages[0], levels[0]) if len(set(stages)) == 1 else (torch.tensor(stages), torch.tensor(levels))))
        try:
            attachment.attach()
            output = executor(latents, *args, **kwargs)
            if attachment.weights is not None:  # or something answered in the DiT's place
                state.check_call(attachment, options)
                if watched is not None:
                    state.note(attachment.weights[watched : watched + 1], stages[watched])
        finally:
            if not (is_training and self.key in options):
                attachment.detach()
        return output


@dataclass(frozen=True, eq=False)
class PairState:
    """What a pair needs to know and to keep during one sampling, or while a MODEL is trained on.

    Attributes:
        schedule: of the MODEL as it is sampled.
        guider: of the sampling.
        model: the MODEL that is sampled or trained on, with the copies of it that lie on other devices.
        kinds: of each list of prompts in ComfyUI's current batch, where it is known.
        record: weights that were used so far.
        attachments: the pair's place in each DiT; each device has a DiT of its own, and several may be called at once.
        reached: set once anything was computed with the pair's wrapper around it.
        met: kinds of prompts of which the model computed rows.
    """

    applied: AppliedPair
    schedule: NoiseSchedule
    guider: CFGGuider | None = None
    model: ModelPatcher | None = None
    kinds: tuple[Kind | None, ...] = ()
    record: BlendRecord = field(default_factory=BlendRecord)
    attachments: dict[nn.Module, Attachment] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    reached: threading.Event = field(default_factory=threading.Event)
    met: set[Kind] = field(default_factory=set)

    def kind_of(self, model: BaseModel, prompts: list[dict] | None) -> Kind | None:
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

    def kind_at(self, mark: int) -> Kind:
        """What the list of prompts at this place of the batch is for."""
        known = self.kinds[mark] if mark < len(self.kinds) else None
        return known or ("unwanted" if mark == NEGATIVE else "wanted")

    def note(self, weights: torch.Tensor, stage: float) -> None:
        """Records the weights (1, G, 2) of a call; other devices may be at other rows of the same prompts."""
        with self.lock:
            self.record.add(weights, stage)

    def note_on_negative(self) -> str:
        """A sentence where the pair acted, but a negative prompt that it was to be kept out of was never computed; else empty."""
        if self.applied.strengths.adapts_negative or "unwanted" in self.met:
            return ""
        negatives = [prompt for name, listed in self.guider.conds.items() if name not in ADAPTED for prompt in listed or ()]
        if not negatives or any(has_range(prompt) for prompt in negatives):  # its range may lie outside of what was sampled
            return ""
        return NO_NEGATIVE if any(bool(weights.any()) for weights in self.record.calls) else ""

    def attachment(self, transformer: nn.Module, device: torch.device, dtype: torch.dtype) -> Attachment:
        """The pair's attachment to a DiT, its weights where and in what precision the DiT computes.

        The pair itself is left as it is: other MODELs carry it as well, and may be of another precision.
        """
        applied, transformer = self.applied, getattr(transformer, "_orig_mod", transformer)
        with self.lock:
            attachment = self.attachments.get(transformer)
            if attachment is None or not is_placed(attachment.pair, device, dtype):
                if attachment is not None:
                    attachment.detach()
                pair = self._pair_for(transformer, dtype)
                is_taken = any(other.pair is pair for other in self.attachments.values())
                if is_taken or not is_placed(pair, device, dtype):
                    pair = placed(pair, device, dtype)
                attachment = self.attachments[transformer] = Attachment(transformer, pair, _blend_at(applied.blend, device))
                attachment.detach()
                attachment.strengths = {"identity": applied.strengths.identity, "motion": applied.strengths.motion}
                attachment.audio_strength = applied.strengths.audio
                if applied.condition is not None:
                    attachment.condition = applied.condition.to(device, dtype)
        return attachment

    def _pair_for(self, transformer: nn.Module, dtype: torch.dtype) -> AdapterPair:
        """What ComfyUI loads where it loads this DiT, if it is of this precision; rounding it to another would round twice."""
        devices = [] if self.model is None else [self.model, *self.model.get_additional_models_with_key("multigpu")]
        for patcher in devices:
            for carried in patcher.get_additional_models_with_key(self.applied.key):
                if patcher.model.diffusion_model is transformer and next(carried.model.sides.parameters()).dtype == dtype:
                    return carried.model
        return self.applied.pair

    def check_call(self, attachment: Attachment, options: dict) -> None:
        """Raises InputError where a call of the DiT stepped past a place on which the pair acts.

        Not judged are calls in which others replace blocks that they do not replace in the whole sampling: guidance by skipped
        layers makes such calls beside its plain ones.
        """
        places = attachment.silent()
        if not places:
            return
        replaced = replaced_blocks(options)
        usual = replaced if self.guider is None else replaced_blocks(self.guider.model_options["transformer_options"])
        if all(usual.get(key) is patch for key, patch in replaced.items()):
            transformer = next(one for one, own in list(self.attachments.items()) if own is attachment)  # other devices may add theirs
            raise InputError(sentence_on_places(transformer, places, replaced))

    def check_whole(self, sigmas: torch.Tensor) -> None:
        """Raises InputError where a sampling over sigmas (S + 1,) that is over left the pair out."""
        strengths = self.applied.strengths
        if not (strengths.identity or strengths.motion):
            return
        if not self.reached.is_set() and len(sigmas) > 1:
            raise InputError(
                "The pair was left out of this sampling, because something on the MODEL computes it in a way of its own: take away the "
                "node between the loader and the sampler that replaces how the model is called."
            )
        for transformer, attachment in self.attachments.items():
            if attachment.coverage.has_run and (places := attachment.silent()):
                raise InputError(sentence_on_places(transformer, places, {}))

    def release(self) -> None:
        """Takes the pair out of every DiT."""
        for attachment in self.attachments.values():
            attachment.detach()


def apply_pair(
    model: ModelPatcher, pair: AdapterPair, strengths: Strengths, blend: Blend | None = None, condition: torch.Tensor | None = None
) -> ModelPatcher:
    """A clone of MODEL on which the pair acts, beside any pairs it already has.

    Args:
        pair: becomes the clone's own: give a copy.
        blend: instead of the pair's own.
        condition: reference embedding (1, E) for conditioned sides.

    Raises:
        InputError: the pair does not fit the model.
    """
    check_fit(diffusion_model(model), pair)
    pair.requires_grad_(False)
    if condition is not None:
        with torch.inference_mode(False):  # so that autograd takes it where a pair is trained on the clone
            condition = condition.clone()
    others = applied_pairs(model)
    key = f"{KEY}-{len(others)}"
    applied = AppliedPair(key, pair, blend, strengths, condition, _schedule(model, strengths))
    patched = model.clone()
    _wrap(patched, applied)
    dtype = model.get_model_object("manual_cast_dtype") or model.model.get_dtype()
    loaded = pair if is_placed(pair, model.offload_device, dtype) else placed(pair, model.offload_device, dtype)
    patched.set_additional_models(key, [patcher_of(loaded, model.load_device, model.offload_device)])
    patched.set_attachments(KEY, (*others, applied))
    return patched


def exchanged(model: ModelPatcher, change: Callable[[AppliedPair], AppliedPair]) -> ModelPatcher:
    """A clone of MODEL on which each pair acts as `change` says: with other strengths or another blend. No weights are moved."""
    patched, pairs = model.clone(), [change(applied) for applied in applied_pairs(model)]
    for applied in pairs:
        _wrap(patched, applied)
    patched.set_attachments(KEY, tuple(pairs))
    return patched


def applied_pairs(model: ModelPatcher) -> tuple[AppliedPair, ...]:
    """The pairs that act on a MODEL, in the order in which they were applied."""
    return model.get_attachment(KEY) or ()


def has_range(prompt: dict) -> bool:
    """Whether a prompt of ComfyUI counts in a part of denoising alone."""
    return prompt.get("start_percent", 0.0) > 0.0 or prompt.get("end_percent", 1.0) < 1.0


def replaced_blocks(options: dict) -> dict[tuple, Callable]:
    """What others call in place of blocks, by ComfyUI's names for these."""
    return options.get("patches_replace", {}).get("dit", {})


def diffusion_model(model: ModelPatcher) -> nn.Module:
    """The DiT of a MODEL.

    Raises:
        InputError: it is of no family that pairs can be made for.
    """
    transformer = model.get_model_object("diffusion_model")
    family_of(transformer)
    return transformer


def _wrap(patched: ModelPatcher, applied: AppliedPair) -> None:
    wrappers = (applied.outer_sample_wrapper, applied.calc_cond_batch_wrapper, applied.apply_model_wrapper)
    for kind, wrapper in zip((WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL), wrappers, strict=True):
        patched.remove_wrappers_with_key(kind, applied.key)
        patched.add_wrapper_with_key(kind, applied.key, wrapper)


def _blend_at(blend: Blend | None, device: torch.device) -> Blend | None:
    """A blend whose StageBlender, if it brings one, is a copy on this device."""
    if not isinstance(blend, LearnedBlend):
        return blend
    with torch.inference_mode(False):
        return LearnedBlend(copy.deepcopy(blend.controller).to(device=device))


def _schedule(model: ModelPatcher, strengths: Strengths) -> NoiseSchedule:
    sampling = model.get_model_object("model_sampling")
    is_flow = isinstance(sampling, CONST)
    return NoiseSchedule.of(sampling.percent_to_sigma, strengths.start_percent, strengths.end_percent, is_flow)
