"""The text that a DiT is called with in sampling, of prompts: what a CLIP makes of them, and a model of that before it samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ..dualreal_core.errors import InputError
from ..dualreal_core.families import family_of
from ..dualreal_core.gating.tokens import without_padding
from .model_inputs import check_text
from .patching import diffusion_model
from .progress import Progress, interruptible
from .videos import named

TEXT = "c_crossattn"
"""ComfyUI's name for the text among the conds of a prompt; its models hand it to their DiT as `context`."""
READS_TEXT_BEFORE = "preprocess_text_embeds"
"""Method of the DiTs (LTX-2, MiniMax-H3) whose own layers read the text once before sampling, and not in each call."""


@contextmanager
def prompt_texts(
    model: ModelPatcher, clip: comfy.sd.CLIP, prompts: Sequence[str], progress: Progress
) -> Iterator[Sequence[torch.Tensor]]:
    """The tokens (T, X) of each prompt, on the CPU, in the precision in which the DiT computes.

    The CLIP is done with all prompts before a DiT that reads them itself is loaded. What such a one makes of a prompt may be long
    (LTX-2 has 1024 tokens for any), so it is made each time that it is asked for, and not kept.

    Raises:
        InputError: the CLIP is not the model's.
    """
    if clip is None:
        raise InputError("The loader gives no text encoder; add Load CLIP with the one that the model needs.")
    dit, dtype = diffusion_model(model), model.model.get_dtype_inference()
    texts: list[torch.Tensor] = []
    spoken: list[list] = []
    with interruptible(getattr(clip, "cond_stage_model", None)), named("The text encoder cannot encode a prompt", "load the right one"):
        for prompt in prompts:
            entries = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[:1]
            if not progress.done:
                check_text(entries, dit, family_of(dit), "The text of clip", "clip")
            if hasattr(dit, READS_TEXT_BEFORE):
                spoken.append([[entries[0][0].to("cpu", dtype), entries[0][1]]])
            else:
                texts.append(without_padding(text_in_call(model.model, entries, model.load_device)).cpu())
            progress.advance()
    if texts:
        yield texts
        return
    with _ready(model):
        yield _Texts(model, spoken)


def text_in_call(model: BaseModel, conditioning: list, device: torch.device) -> torch.Tensor:
    """What the DiT is called with for a CONDITIONING of one entry: tokens (T, X)."""
    given = comfy.sampler_helpers.convert_cond(conditioning)
    given[0].setdefault("pooled_output", None)  # without the key, some classes raise
    noise = torch.zeros(1, model.latent_format.latent_channels, 1, 2, 2, device=device)
    if model.concat_keys:  # they want an image
        given[0].setdefault("concat_latent_image", noise)
    conds = comfy.samplers.encode_model_conds(model.extra_conds, given, noise, device, "positive")
    return conds[0]["model_conds"][TEXT].cond[0].to(model.get_dtype_inference())


class _Texts(Sequence[torch.Tensor]):
    def __init__(self, model: ModelPatcher, spoken: Sequence[list]) -> None:
        self.model, self.spoken = model, spoken

    def __len__(self) -> int:
        return len(self.spoken)

    def __getitem__(self, index: int) -> torch.Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.inference_mode():
            return text_in_call(self.model.model, self.spoken[index], self.model.load_device).cpu()


@contextmanager
def _ready(model: ModelPatcher) -> Iterator[None]:
    """Within it a MODEL may be called outside of sampling."""
    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    try:
        yield
    finally:
        model.cleanup()
