"""A pair on a MODEL, by ComfyUI's patchers; beside `pair_patcher`, `pair_state` and `training_model` the only file that touches them.

A pair is in the DiT for the length of each call of the model, from a wrapper around that call. So nothing is left on the module that
clones share, order does not matter, and the DiT that a call reaches is the one that has the pair in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import CONST
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import get_executing_context
from torch import nn

from ..dualreal_core.families import family_of
from ..dualreal_core.method.attach import check_fit
from ..dualreal_core.method.blend import Blend
from ..dualreal_core.method.pair import AdapterPair, Role
from ..dualreal_core.method.placement import is_placed, placed
from ..dualreal_core.storage.format import digest
from .blend_used import tell_page
from .denoising_stage import NoiseSchedule, sigmas_of_rows
from .pair_patcher import patcher_of
from .pair_state import PairState
from .sampled_part import MAX_PARTS, SampledPart, latent_mark

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.samplers import CFGGuider

KEY = "dualreal"


@dataclass(frozen=True)
class Strengths:
    """How much of a pair acts, and when.

    Attributes:
        identity, motion: factors on the weights of the two sides.
        start_percent, end_percent: the part of denoising in which the pair acts.
        adapts_negative: whether it also acts on the rows of the negative prompt.
        audio: factor on the weights of what it does to the sound, in models that have one.
        follows_prompt: whether its prompt gate, if it has one, has a say.
    """

    identity: float = 1.0
    motion: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    adapts_negative: bool = False
    audio: float = field(default=0.0, repr=False)  # so that runs on a MODEL with a pair keep their names
    follows_prompt: bool = field(default=True, repr=False)


@dataclass(eq=False)
class AppliedPair:
    """A pair on one MODEL and on all its clones, with ComfyUI's wrappers around sampling and the DiT's calls.

    What changes while sampling lies in a `PairState`, which the calls find in their `transformer_options` under `key`.

    Attributes:
        blend: None for the pair's own.
        condition: reference embedding (1, E) for conditioned sides.
        schedule: of the MODEL when the pair was applied; calls outside of any sampling go by it.
        named_by: words by which prompts name each side, for people; of a pair with a prompt gate.
        parts: what the last samplings used, each a part of denoising or all of it; one list for both experts of a model.
    """

    key: str
    pair: AdapterPair
    blend: Blend | None
    strengths: Strengths
    condition: torch.Tensor | None
    schedule: NoiseSchedule
    named_by: Mapping[Role, Sequence[str]] = field(default_factory=dict)
    parts: list[SampledPart] = field(default_factory=list)

    @cached_property
    def name(self) -> str:
        """Tells it from other pairs, strengths and references, whatever precision it is cast to; takes seconds for large pairs."""
        given = {**self.pair.state_dict(), **({} if self.condition is None else {"condition": self.condition})}
        weights = digest({part: tensor.detach().cpu() for part, tensor in given.items()})
        audio = f" audio {self.strengths.audio}" if self.strengths.audio else ""
        unprompted = "" if self.strengths.follows_prompt else " whatever the prompt"
        return f"{weights} {self.pair.config} {self.strengths} {self.blend}{audio}{unprompted}"

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
            note = " ".join(filter(None, (state.note_on_prompt(), state.note_on_negative())))
            part = SampledPart(*marks, start, end, state.schedule.stage(end), state.record, prompt, note=note)
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
                    wanted = [row for row, kind in enumerate(kinds) if kind == "wanted"]
                    state.note_named(attachment.named, wanted)
        finally:
            if not (is_training and self.key in options):
                attachment.detach()
        return output


def apply_pair(
    model: ModelPatcher,
    pair: AdapterPair,
    strengths: Strengths,
    blend: Blend | None = None,
    condition: torch.Tensor | None = None,
    named_by: Mapping[Role, Sequence[str]] | None = None,
) -> ModelPatcher:
    """A clone of MODEL on which the pair acts, beside any pairs it already has.

    Args:
        pair: becomes the clone's own: give a copy.
        blend: instead of the pair's own.
        condition: reference embedding (1, E) for conditioned sides.
        named_by: see `AppliedPair`.

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
    applied = AppliedPair(key, pair, blend, strengths, condition, _schedule(model, strengths), named_by or {})
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


def _schedule(model: ModelPatcher, strengths: Strengths) -> NoiseSchedule:
    sampling = model.get_model_object("model_sampling")
    is_flow = isinstance(sampling, CONST)
    return NoiseSchedule.of(sampling.percent_to_sigma, strengths.start_percent, strengths.end_percent, is_flow)
