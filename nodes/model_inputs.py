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
    "ltx2": Encoders(
        "LTX-2", "the video VAE of the LTX-2 checkpoint (of LTX-2.5 for LTX-2.5)",
        "gemma_3_12B (LTX-2.5: gemma4-12b with its projection), by Load LTXV Audio Text Encoder",
    ),
    "minimax-h3": Encoders("MiniMax-H3", "minimax_h3_video_vae", "qwen3vl_32b_minimax_h3, by Load CLIP of type 'minimax'"),
    "hunyuan": Encoders("HunyuanVideo", "hunyuan_video_vae", "clip_l and llava_llama3, by DualCLIPLoader of type 'hunyuan_video'"),
    "kandinsky5": Encoders("Kandinsky 5", "hunyuan_video_vae", "qwen_2.5_vl_7b and clip_l, by DualCLIPLoader of type 'kandinsky5'"),
}
OF_OTHER_TEXT: dict[tuple[str, int], Encoders] = {
    ("hunyuan", 3584): Encoders(
        "HunyuanVideo 1.5", "hunyuanvideo15_vae", "qwen_2.5_vl_7b and byt5_small_glyphxl, by DualCLIPLoader of type 'hunyuan_video_15'"
    ),
}
"""Of models that read text of another width than their family's others."""
VAES = {
    4: "Stable Diffusion or SDXL",
    12: "Mochi",
    16: "Wan 2.1, HunyuanVideo, CogVideoX, Flux or SD3",
    24: "MiniMax-H3",
    32: "HunyuanVideo 1.5",
    48: "Wan 2.2 5B",
    128: "LTX-Video or LTX-2",
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
    5120: "Qwen3-VL 32B",
    6144: "Gemma 3 by the projection of LTX-2.3",
}
"""Whose tokens are so wide."""


def encoders_of(transformer: nn.Module, family: FamilyDescription) -> Encoders:
    """What belongs to a model."""
    own = ENCODERS.get(family.name, Encoders(family.name, "which its files come with", "its own text encoder"))
    return OF_OTHER_TEXT.get((family.name, _input_width(transformer, family.text_layer)), own)


def check_channels(given: int, wanted: int, what: str, cure: str, own: Encoders) -> None:
    """Raises InputError where latents or a VAE have other channels than the model."""
    if given == wanted:
        return
    raise InputError(
        f"{what} {given} channels{_as_of(given, VAES)}, and this {own.model} model takes {wanted}{_as_of(wanted, VAES)}: {cure} the VAE of "
        f"the model, {own.vae}."
    )


def check_text(conditioning: list, transformer: nn.Module, family: FamilyDescription, name: str, into: str = "") -> None:
    """Raises InputError where a CONDITIONING of one entry is not of the text encoder that the model needs.

    Args:
        name: of what is checked.
        into: where the right encoder is to be wired; default: the node that makes it.
    """
    (text, extras), own = conditioning[0][:2], encoders_of(transformer, family)
    cure = f"wire {own.text}, into {into or f'the node that makes {name}'}"
    if not isinstance(text, torch.Tensor) or text.ndim != 3:
        shown = "no tokens" if not isinstance(text, torch.Tensor) else f"{text.ndim} dimensions instead of 3"
        raise InputError(f"{name} has {shown}, so it is no text: {cure}.")
    widths, given = text_widths(transformer, family), text.shape[-1]
    if widths and given not in widths:
        wanted = " or ".join(f"{width}{_as_of(width, TEXT_ENCODERS)}" for width in widths)
        raise InputError(
            f"{name} is {given} wide{_as_of(given, TEXT_ENCODERS)}, and this {own.model} model reads text of width {wanted}: {cure}."
        )
    pooled_width, pooled = _input_width(transformer, family.pooled_layer), extras.get("pooled_output")
    if pooled_width is not None and (pooled is None or pooled.shape[-1] != pooled_width):
        has = "has no pooled output" if pooled is None else f"has a pooled output of width {pooled.shape[-1]}"
        raise InputError(f"{name} {has}, and this {own.model} model needs one of width {pooled_width} (that of CLIP-L): {cure}.")
    mask = extras.get("attention_mask")
    if family.needs_text_mask and mask is None:
        raise InputError(f"{name} has no attention mask, without which {own.model} cannot run: {cure}.")


def text_widths(transformer: nn.Module, family: FamilyDescription) -> list[int]:
    """Widths of text that a model reads, the usual one first; none where that is not known."""
    if hasattr(transformer, "audio_cross_attention_dim"):  # LTX-2, which makes text for both streams of what is not so yet
        both, captions = transformer.cross_attention_dim + transformer.audio_cross_attention_dim, transformer.caption_channels
        if not transformer.caption_proj_before_connector:
            return [captions, 2 * captions]
        return [captions, both] if isinstance(transformer.caption_projection, nn.Module) else [both]
    width = _input_width(transformer, family.text_layer)
    refined = [transformer.hidden_size] if hasattr(transformer, "token_refiner") else []  # MiniMax-H3 takes what it has refined
    return [] if width is None else list(dict.fromkeys([width, *refined]))


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
