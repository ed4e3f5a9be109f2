"""What a VAE, a text encoder and an image encoder make of samples, with errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import comfy.clip_vision
import comfy.model_management
import comfy.sd
import node_helpers
import torch

from ..dualreal_core.dataset.items import Item
from ..dualreal_core.errors import InputError
from .first_frame import FirstFrame, Tell
from .progress import interruptible
from .types import CAPTION_KEY, FILE_KEY
from .videos import named

LARGEST_PAIRED_COMPRESSION = 16
"""Models of VAEs up to this compression join 2x2 latent cells into a token; models of stronger ones take cell by cell."""
UNPAIRED_CHANNELS = (32,)
"""So do those of VAEs whose latents have so many channels (HunyuanVideo 1.5)."""
LONGEST_STEP = 64
"""Frames among which the lengths that a VAE takes are looked for, twice."""
RATED_CHANNELS = (128,)
"""Models of VAEs whose latents have so many channels (LTX-Video, LTX-2) place frames by their time in seconds."""

Latent = dict[str, torch.Tensor | str]


def check_models(vae: comfy.sd.VAE | None, clip: comfy.sd.CLIP | None) -> tuple[comfy.sd.VAE, comfy.sd.CLIP]:
    """Raises InputError where one is missing, or the VAE is no video model's."""
    if vae is None or clip is None:
        missing = "VAE" if vae is None else "text encoder"
        raise InputError(f"The loader gives no {missing}; add Load {'VAE' if vae is None else 'CLIP'} with the one that the model needs.")
    if vae.latent_dim != 3:
        raise InputError("The VAE belongs to an image or audio model; wire the VAE of the video model that you train.")
    return vae, clip


def size_multiple(vae: comfy.sd.VAE) -> int:
    """Sides are multiples of this, in pixels."""
    compression = vae.spacial_compression_encode()
    is_paired = compression <= LARGEST_PAIRED_COMPRESSION and vae.latent_channels not in UNPAIRED_CHANNELS
    return 2 * compression if is_paired else compression


def clip_lengths(vae: comfy.sd.VAE) -> tuple[int, int]:
    """(m, n) where the VAE gives back clips of m * k + n frames as long as they were."""
    try:
        encoded, decoded = vae.downscale_ratio[0], vae.upscale_ratio[0]
        fitting = [length for length in range(2, 2 * LONGEST_STEP) if decoded(encoded(length)) == length]
        step = fitting[1] - fitting[0]
    except (TypeError, IndexError):  # one number for all axes: each frame alone
        return 1, 1
    return step, fitting[0] % step or step


def encode(vae: comfy.sd.VAE, item: Item, frames: torch.Tensor) -> Latent:
    """One latent (1, C, f, h, w), with the name of the picture or clip, so that its samples can be told from others'."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    problem = f"The VAE cannot encode {item.name}"
    with named(problem, "load the right VAE, or train at a smaller size"), interruptible(getattr(vae, "first_stage_model", None)):
        latent = vae.encode(frames)
        is_finite = bool(latent.isfinite().all())
    if not is_finite:
        raise InputError(f"The VAE turns {item.name} into NaN; start ComfyUI with --fp32-vae or load the right VAE.")
    return {"samples": latent, FILE_KEY: item.source.name}


def embed(encoder: comfy.clip_vision.ClipVisionModel | None, item: Item, frame: torch.Tensor) -> object | None:
    """Embedding of a frame (H, W, 3), None without an encoder."""
    with named(f"clip_vision cannot encode a frame of {item.source.name}", "wire a CLIP or DINOv2 encoder of Load CLIP Vision"):
        return encoder.encode_image(frame[None].clone()) if encoder else None


def tell_first_frame(
    tell: Tell | None,
    vae: comfy.sd.VAE,
    item: Item,
    frames: torch.Tensor,
    latent: Latent,
    num_given: int,
    encoder: comfy.clip_vision.ClipVisionModel | None = None,
) -> FirstFrame:
    """What a sample knows of its first frame, nothing without a way to tell it; what its LATENT says of that is put into it.

    frames: (F, H, W, 3), of which the first `num_given` are given.
    """
    if tell is None:
        return FirstFrame()
    known = tell(frames, latent["samples"], lambda pixels: encode(vae, item, pixels)["samples"], num_given)
    if known.noise_mask is not None:
        rest = latent["samples"][:, :, known.held.shape[2] :]
        latent |= {"samples": torch.cat([known.held, rest], dim=2), "noise_mask": known.noise_mask}
    seen = embed(encoder, item, frames[0])
    return known if seen is None else replace(known, conditioning={**known.conditioning, "clip_vision_output": seen})


def tell_rate(vae: comfy.sd.VAE, item: Item, known: FirstFrame) -> FirstFrame:
    """With the frame rate of a clip, as LTXVConditioning tells it, for models that would take it for ComfyUI's 25 fps otherwise."""
    if vae.latent_channels not in RATED_CHANNELS:
        return known
    return replace(known, conditioning={**known.conditioning, "frame_rate": float(item.fps)})


def encode_captions(
    clip: comfy.sd.CLIP, captions: Sequence[str], latents: Sequence[Latent], knows: Sequence[FirstFrame], say: Callable[[str], None]
) -> list[list]:
    """A CONDITIONING of each sample, with its caption; equal ones are encoded once, unless the encoder sees pictures with them.

    latents, knows: of the same samples. say: is told which caption is encoded.
    """
    encoded, found = {}, []
    for caption, latent, known in zip(captions, latents, knows, strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        spoken = caption, *map(id, known.images)
        if spoken not in encoded:
            problem = f"The text encoder cannot encode the caption of {latent[FILE_KEY]}"
            with named(problem, "load the right text encoder"), interruptible(getattr(clip, "cond_stage_model", None)):
                say(f"Encoding the caption of {latent[FILE_KEY]}.")
                seen = {"images": list(known.images)} if known.images else {}
                encoded[spoken] = clip.encode_from_tokens_scheduled(clip.tokenize(caption, **seen))
        found.append(node_helpers.conditioning_set_values(encoded[spoken], {CAPTION_KEY: caption, **known.conditioning}))
    return found


def captions_of(conditioning: Sequence[list]) -> list[str]:
    """The different captions of CONDITIONINGs, in their order; none where one is not of our dataset nodes."""
    found = [extras.get(CAPTION_KEY) for cond in conditioning for _, extras in cond]
    return list(dict.fromkeys(found)) if all(found) else []
