"""What a sample knows of its first frame, told as ComfyUI's own image-to-video nodes tell the models of each VAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import comfy.ldm.wan.vae
import comfy.sd
import comfy.taesd.taehv
import torch

from ..dualreal_core.errors import InputError

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Frames (F, H, W, 3) in [0, 1] -> latents (1, C, f, h, w)."""
GREY = 0.5


@dataclass(frozen=True)
class FirstFrame:
    """Attributes:
        conditioning: entries for the sample's CONDITIONING.
        noise_mask: (1, 1, f, h, w) for its LATENT, 0 where it is given; None where nothing is.
        held: (1, C, 1, h, w) for that place of its LATENT: the frame alone, which some VAEs mix with those that follow.
        images: pictures (1, H, W, 3) that the text encoder sees with the caption.
    """

    conditioning: dict[str, object] = field(default_factory=dict)
    noise_mask: torch.Tensor | None = None
    held: torch.Tensor | None = None
    images: tuple[torch.Tensor, ...] = ()


def _in_grey(frames: torch.Tensor, latents: torch.Tensor, encode: Encode, num_given: int) -> FirstFrame:
    """Wan 2.1 and 2.2 A14B, as WanImageToVideo: a video of the frame and then grey, in channels of its own."""
    video = torch.full_like(frames, GREY)
    video[:num_given] = frames[:num_given]
    return FirstFrame({"concat_latent_image": encode(video), "concat_mask": _mask(latents, num_given)})


def _in_zeros(frames: torch.Tensor, latents: torch.Tensor, encode: Encode, num_given: int) -> FirstFrame:
    """HunyuanVideo, HunyuanVideo 1.5 and CogVideoX, as HunyuanVideo15ImageToVideo: the frame's latents and then zeros.

    Kandinsky 5, whose VAE is HunyuanVideo's, puts them in the place of the noisy ones, as Kandinsky5ImageToVideo has it.
    """
    image, mask = torch.zeros_like(latents), _mask(latents, num_given)
    if not num_given:
        return FirstFrame({"concat_latent_image": image, "concat_mask": mask})
    frame = encode(frames[:num_given])[:, :, :1]
    image[:, :, :1] = frame
    return FirstFrame({"concat_latent_image": image, "concat_mask": mask, "time_dim_replace": frame})


def _held(frames: torch.Tensor, latents: torch.Tensor, encode: Encode, num_given: int) -> FirstFrame:
    """Wan 2.2 5B and LTX-Video, as Wan22ImageToVideoLatent and LTXVImgToVideo: the frame stays clean among the noisy ones."""
    if not num_given:
        return FirstFrame()
    return FirstFrame(noise_mask=_mask(latents, num_given), held=encode(frames[:num_given])[:, :, :1])


def _keyframe(frames: torch.Tensor, latents: torch.Tensor, encode: Encode, num_given: int) -> FirstFrame:
    """MiniMax-H3, as MiniMaxH3ImageToVideo: a keyframe beside the video, which the text encoder sees too."""
    if not num_given:
        return FirstFrame()
    shown = frames[:num_given]
    return FirstFrame({"minimax_keyframes": [{"resolved_frame_index": 0, "latent": encode(shown)}]}, images=(shown,))


Tell = Callable[[torch.Tensor, torch.Tensor, Encode, int], FirstFrame]
BY_CHANNELS: dict[int, Tell] = {24: _keyframe, 32: _in_zeros, 48: _held, 128: _held}
"""By channels of the VAE's latents; those of 16 are told apart by what the VAE is made for."""


def way_to_tell(vae: comfy.sd.VAE) -> Tell:
    """How models of a VAE are told a first frame.

    Raises:
        InputError: no image-to-video model of that VAE is known.
    """
    codec, channels = vae.first_stage_model, vae.latent_channels
    name, is_small = type(codec).__name__, isinstance(codec, comfy.taesd.taehv.TAEHV)
    if channels in BY_CHANNELS:
        return BY_CHANNELS[channels]
    if channels == 16 and (isinstance(codec, comfy.ldm.wan.vae.WanVAE) or (is_small and codec.latent_format is None)):
        return _in_grey
    if channels == 16 and (is_small or name in ("AutoencoderKL", "AutoencoderKLCogVideoX")):
        return _in_zeros
    raise InputError(
        f"image_to_video is on, and the VAE ({name}, {channels} channels) is of no image-to-video model that is known here: switch it off, "
        "or wire the VAE of Wan, LTX-Video, HunyuanVideo, CogVideoX or MiniMax-H3."
    )


def _mask(latents: torch.Tensor, num_given: int) -> torch.Tensor:
    """(1, 1, f, h, w), 0 at the first latent frame where it is given."""
    mask = torch.ones_like(latents[:, :1])
    mask[:, :, :num_given] = 0
    return mask
