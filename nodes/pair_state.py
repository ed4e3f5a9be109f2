"""What a pair needs to know and keeps during one sampling: which rows are whose, where it is in each DiT, what it used."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.method.attach import Attachment
from ..dualreal_core.method.blend import Blend, BlendRecord, LearnedBlend
from ..dualreal_core.method.pair import ROLES, AdapterPair
from ..dualreal_core.method.placement import is_placed, placed
from .denoising_stage import NoiseSchedule
from .gate_words import on_unnamed, sides_of
from .neighbours import sentence_on_places

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.samplers import CFGGuider

    from .patching import AppliedPair

NEGATIVE = 1
"""How ComfyUI marks the rows of the negative prompt where nothing else tells."""
ADAPTED = ("positive", "middle")
"""ComfyUI's names for prompts of what is wanted; it has others for those to keep away from."""
NO_NEGATIVE = (
    "The negative prompt was not computed, as at cfg 1, so negative 'plain base' did nothing: no guidance strengthens the pair. Where it "
    "acts too weakly, raise identity_strength and motion_strength, to 1.2 as a start."
)
Kind = Literal["wanted", "unwanted", "foreign"]
"""What a list of prompts is for; foreign are those of another model, which some guiders use for a part of the prompts."""


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
        named: (2,) of each call, how far any prompt of what is wanted names each side; of a pair whose prompt gate has a say.
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
    named: list[torch.Tensor] = field(default_factory=list)

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

    def note_named(self, named: torch.Tensor | None, rows: Sequence[int]) -> None:
        """Keeps what the prompt gate said of these rows of a call: named (B or 1, 2)."""
        if named is not None:
            own = named.detach()
            self.named.append((own if len(own) == 1 else own[list(rows)]).amax(dim=0))  # not to the host, which would wait for the device

    def note_on_prompt(self) -> str:
        """A sentence where a side was off all along, as no prompt named it; else empty."""
        if not self.named:
            return ""
        most, applied = torch.stack([named.cpu() for named in self.named]).amax(dim=0).tolist(), self.applied
        able = [role for role in sides_of(applied.pair) if getattr(applied.strengths, role)]
        unnamed = [role for role, share in zip(ROLES, most, strict=True) if role in able and not share]
        return on_unnamed({role: applied.named_by.get(role, ()) for role in unnamed}) if unnamed else ""

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
                attachment.follows_prompt = applied.strengths.follows_prompt
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


def has_range(prompt: dict) -> bool:
    """Whether a prompt of ComfyUI counts in a part of denoising alone."""
    return prompt.get("start_percent", 0.0) > 0.0 or prompt.get("end_percent", 1.0) < 1.0


def replaced_blocks(options: dict) -> dict[tuple, Callable]:
    """What others call in place of blocks, by ComfyUI's names for these."""
    return options.get("patches_replace", {}).get("dit", {})


def _blend_at(blend: Blend | None, device: torch.device) -> Blend | None:
    """A blend whose StageBlender, if it brings one, is a copy on this device."""
    if not isinstance(blend, LearnedBlend):
        return blend
    with torch.inference_mode(False):
        return LearnedBlend(copy.deepcopy(blend.controller).to(device=device))
