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
from .model_inputs import check_text
from .patching import diffusion_model
from .progress import Progress, interruptible
from .videos import named

TEXT = "c_crossattn"
"""ComfyUI's name for the text among the conds of a prompt; its models hand it to their DiT as `context`."""
READS_TEXT_BEFORE = "preprocess_text_embeds"
"""Method of the DiTs (LTX-2, MiniMax-H3) whose own layers read the text once before sampling, and not in each call."""


def prompt_texts(model: ModelPatcher, clip: comfy.sd.CLIP, prompts: Sequence[str], progress: Progress) -> list[torch.Tensor]:
    """The tokens (T, X) of each prompt, on the CPU, in the precision in which the DiT computes; padding by zeros is left out.

    The CLIP is done with all prompts before a DiT that reads them itself is loaded.

    Raises:
        InputError: the CLIP is not the model's.
    """
    if clip is None:
        raise InputError("The loader gives no text encoder; add Load CLIP with the one that the model needs.")
    dit, spoken = diffusion_model(model), []
    with interruptible(getattr(clip, "cond_stage_model", None)), named("The text encoder cannot encode a prompt", "load the right one"):
        for prompt in prompts:
            entries = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
            if not spoken:
                check_text(entries, dit, family_of(dit), "The text of clip", "clip")
            spoken.append([[entries[0][0].cpu(), entries[0][1]]])
            progress.advance()
    with _ready(model):
        return [_without_padding(text_in_call(model.model, entries, model.load_device)) for entries in spoken]


def text_in_call(model: BaseModel, conditioning: list, device: torch.device) -> torch.Tensor:
    """What the DiT is called with for a CONDITIONING of one entry: tokens (T, X)."""
    given = comfy.sampler_helpers.convert_cond(conditioning)
    given[0].setdefault("pooled_output", None)  # without the key, some classes raise
    noise = torch.zeros(1, model.latent_format.latent_channels, 1, 2, 2, device=device)
    if model.concat_keys:  # they want an image
        given[0].setdefault("concat_latent_image", noise)
    conds = comfy.samplers.encode_model_conds(model.extra_conds, given, noise, device, "positive")
    return conds[0]["model_conds"][TEXT].cond[0].to(model.get_dtype_inference())


@contextmanager
def _ready(model: ModelPatcher) -> Iterator[None]:
    """Within it a DiT is loaded that reads the text itself before sampling."""
    if not hasattr(model.model.diffusion_model, READS_TEXT_BEFORE):
        yield
        return
    comfy.model_management.load_models_gpu([model])
    model.pre_run()
    try:
        yield
    finally:
        model.cleanup()


def _without_padding(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (T, X) up to the last one that is not zero, on the CPU; at least one."""
    filled = tokens.any(dim=-1).nonzero()
    return tokens[: int(filled[-1]) + 1 if len(filled) else 1].cpu()
