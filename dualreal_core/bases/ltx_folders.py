"""Model folders of LTX-Video and LTX-2, of which the video alone is computed."""

from __future__ import annotations

import torch
from torch import nn

from .texts import text_mask

LTX_FPS, LTX2_FPS = 25.0, 24.0


def tokens_of(latents: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w) -> (B, f * h * w, C)"""
    return latents.flatten(2).transpose(1, 2)


def latents_of(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """tokens: (B, f * h * w, C) -> (B, C, f, h, w), as `like` is"""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])


def ltx_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X) -> flow velocity (B, C, f, h, w)."""
    num_frames, height, width = latents.shape[2:]
    output = transformer(
        hidden_states=tokens_of(latents),
        encoder_hidden_states=text,
        timestep=timestep,
        encoder_attention_mask=text_mask(text),
        num_frames=num_frames,
        height=height,
        width=width,
        rope_interpolation_scale=(8 / LTX_FPS, 32, 32),
        return_dict=False,
    )[0]
    return latents_of(output, latents)


def ltx2_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """With a moment of sound that the video does not hear, as it cannot be called with none.

    latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X) -> flow velocity (B, C, f, h, w).
    """
    config, batch = transformer.config, len(latents)
    num_frames, height, width = latents.shape[2:]
    sound_text_width = config.caption_channels if config.use_prompt_embeddings else config.audio_cross_attention_dim
    output = transformer(
        hidden_states=tokens_of(latents),
        audio_hidden_states=latents.new_zeros(batch, 1, config.audio_in_channels),
        encoder_hidden_states=text,
        audio_encoder_hidden_states=text.new_zeros(batch, 1, sound_text_width),
        timestep=timestep,
        sigma=timestep,
        encoder_attention_mask=text_mask(text),
        audio_encoder_attention_mask=text_mask(text)[:, :1],
        num_frames=num_frames,
        height=height,
        width=width,
        fps=LTX2_FPS,
        audio_num_frames=1,
        isolate_modalities=True,
        return_dict=False,
    )[0]
    return latents_of(output, latents)
