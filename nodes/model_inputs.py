"""Latents, text and embeddings against what a model takes: a wrong VAE or encoder is named before torch meets its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..dualreal_core.errors import InputError
from ..dualreal_core.families import FamilyDescription


@dataclass(frozen=True)
class Encoders:
    """What belongs to a family, as its users know it."""

    model: str
    vae: str
    text: str


ENCODERS: dict[str, Encoders] = {
    "wan": Encoders("Wan", "wan_2.1_vae (for the 5B model wan2.2_vae)", "umt5_xxl, by Load CLIP of type 'wan'"),
    "cogvideox": Encoders("CogVideoX", "the CogVideoX VAE", "t5xxl, by Load CLIP of type 'cogvideox'"),
    "ltx": Encoders("LTX-Video", "the LTX-Video VAE", "t5xxl, by Load CLIP of type 'ltxv'"),
    "hunyuan": Encoders("HunyuanVideo", "hunyuan_video_vae", "clip_l and llava_llama3, by DualCLIPLoader of type 'hunyuan_video'"),
}
VAES = {
    4: "Stable Diffusion or SDXL",
    12: "Mochi",
    16: "Wan 2.1, HunyuanVideo, CogVideoX, Flux or SD3",
    32: "HunyuanVideo 1.5",
    48: "Wan 2.2 5B",
    128: "LTX-Video",
}
"""Whose latents have so many channels."""
TEXT_ENCODERS = {
    512: "umT5 base or an audio encoder",
    768: "CLIP-L",
    1024: "OpenCLIP-H",
    1280: "CLIP-G",
    2048: "SDXL's CLIP-L with CLIP-G",
    3584: "Qwen2.5-VL",
    3840: "Gemma 3",
    4096: "T5-XXL, UMT5-XXL or Llama 3",
}
"""Whose tokens are so wide."""


def check_channels(given: int, wanted: int, what: str, cure: str, family: FamilyDescription) -> None:
    """Raises InputError where latents or a VAE have other channels than the model."""
    if given == wanted:
        return
    own = ENCODERS[family.name]
    raise InputError(
        f"{what} {given} channels{_as_of(given, VAES)}, and this {own.model} model takes {wanted}{_as_of(wanted, VAES)}: {cure} the VAE of "
        f"the model, {own.vae}."
    )


def check_text(conditioning: list, transformer: nn.Module, family: FamilyDescription, name: str) -> None:
    """Raises InputError where a CONDITIONING of one entry is not of the text encoder that the model needs."""
    (text, extras), own = conditioning[0][:2], ENCODERS[family.name]
    cure = f"wire {own.text}, into the node that makes {name}"
    if not isinstance(text, torch.Tensor) or text.ndim != 3:
        shown = "no tokens" if not isinstance(text, torch.Tensor) else f"{text.ndim} dimensions instead of 3"
        raise InputError(f"{name} has {shown}, so it is no text: {cure}.")
    width = _input_width(transformer, family.text_layer)
    if width not in (None, text.shape[-1]):
        raise InputError(
            f"{name} is {text.shape[-1]} wide{_as_of(text.shape[-1], TEXT_ENCODERS)}, and this {own.model} model reads text of width "
            f"{width}{_as_of(width, TEXT_ENCODERS)}: {cure}."
        )
    pooled_width, pooled = _input_width(transformer, family.pooled_layer), extras.get("pooled_output")
    if pooled_width is not None and (pooled is None or pooled.shape[-1] != pooled_width):
        has = "has no pooled output" if pooled is None else f"has a pooled output of width {pooled.shape[-1]}"
        raise InputError(f"{name} {has}, and this {own.model} model needs one of width {pooled_width} (that of CLIP-L): {cure}.")
    mask = extras.get("attention_mask")
    if family.needs_text_mask and mask is None:
        raise InputError(f"{name} has no attention mask, without which {own.model} cannot run: {cure}.")


def check_references(references: Sequence[object], name: str) -> None:
    """Raises InputError where embeddings are missing, or come from different image encoders."""
    widths = [getattr(getattr(reference, "image_embeds", None), "shape", (0,))[-1] for reference in references]
    cure = "wire one CLIP vision model, such as clip_vision_h, into the node that makes them"
    for number, (reference, width) in enumerate(zip(references, widths, strict=True), start=1):
        if not width or reference.image_embeds.ndim != 2:
            raise InputError(f"{name}: number {number} has no pooled image embedding, as of SigLIP: {cure}.")
        if width != widths[0]:
            raise InputError(f"{name}: number 1 is {widths[0]} wide and number {number} {width}, so two encoders made them: {cure}.")


def _input_width(transformer: nn.Module, path: str) -> int | None:
    """None where the model has no such layer."""
    if not path:
        return None
    try:
        return getattr(transformer.get_submodule(path), "in_features", None)
    except AttributeError:
        return None


def _as_of(size: int, known: dict[int, str]) -> str:
    return f" (as of {known[size]})" if size in known else ""
