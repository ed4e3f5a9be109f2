"""Model folders of HunyuanVideo and HunyuanVideo 1.5, text to video."""

from __future__ import annotations

import torch
from torch import nn

from .texts import parted, text_mask

GUIDANCE = 6.0
"""That HunyuanVideo, which was distilled from guided sampling, is told to put out; ComfyUI and diffusers have it as default."""


def hunyuan_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X), pooled one first -> flow velocity (B, C, f, h, w)."""
    pooled, tokens = text[:, 0, : transformer.config.pooled_projection_dim], text[:, 1:]
    guidance = torch.full_like(timestep, 1000 * GUIDANCE, dtype=latents.dtype) if transformer.config.guidance_embeds else None
    return transformer(
        hidden_states=latents,
        timestep=timestep,
        encoder_hidden_states=tokens,
        encoder_attention_mask=text_mask(tokens),
        pooled_projections=pooled,
        guidance=guidance,
        return_dict=False,
    )[0]


def hunyuan_15_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X) of both encoders -> flow velocity (B, C, f, h, w)."""
    config = transformer.config
    first, second = parted(text, (config.text_embed_dim, config.text_embed_2_dim))
    no_image = latents.new_zeros(len(latents), latents.shape[1] + 1, *latents.shape[2:])
    return transformer(
        hidden_states=torch.cat([latents, no_image], dim=1),
        timestep=timestep.to(latents.dtype),
        encoder_hidden_states=first,
        encoder_attention_mask=text_mask(first),
        encoder_hidden_states_2=second,
        encoder_attention_mask_2=text_mask(second),
        image_embeds=latents.new_zeros(len(latents), 1, config.image_embed_dim),
        return_dict=False,
    )[0]
