"""Model folders of HunyuanVideo and HunyuanVideo 1.5, text to video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, LlamaModel, Qwen2_5_VLTextModel, T5EncoderModel

from .folder_layout import Config, FolderLayout, TextEncoders
from .noise_schedules import even_sigmas, flow_objective
from .texts import joined, parted, text_mask, without_padding

GUIDANCE = 6.0
"""That HunyuanVideo, which was distilled from guided sampling, is told to put out; ComfyUI and diffusers have it as default."""


def scales(vae: Config) -> tuple[int, int]:
    """As configured."""
    return int(vae["temporal_compression_ratio"]), int(vae["spatial_compression_ratio"])


def patches(transformer: Config) -> tuple[int, int, int]:
    """As configured."""
    return int(transformer["patch_size_t"]), int(transformer["patch_size"]), int(transformer["patch_size"])


def statistics(vae: Config, _folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw latents times the scaling factor are what the DiT sees."""
    return torch.zeros(1), 1 / torch.tensor([float(vae["scaling_factor"])])


def hunyuan_text(encoders: TextEncoders, prompt: str, length: int) -> torch.Tensor:
    """(1 + T, X), the pooled text first, without padding"""
    llama, clip = encoders.text_encoder(), encoders.text_encoder("text_encoder_2")
    pipeline = HunyuanVideoPipeline(llama, encoders.tokenizer(), None, None, None, clip, encoders.tokenizer("tokenizer_2"))
    embedding, pooled, mask = pipeline.encode_prompt(prompt, device=encoders.device, dtype=llama.dtype, max_sequence_length=length)
    tokens = without_padding(embedding[0], mask[0])
    width = max(tokens.shape[1], pooled.shape[1])
    return torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in (pooled.to(tokens), tokens)])


def hunyuan_15_text(encoders: TextEncoders, prompt: str, length: int) -> torch.Tensor:
    """(T + 1 + U, X), joined: the text, and what is to be written in the picture"""
    device = encoders.device
    first = HunyuanVideo15Pipeline._get_mllm_prompt_embeds(encoders.text_encoder(), encoders.tokenizer(), prompt, device, length)
    glyphs = encoders.tokenizer("tokenizer_2"), encoders.text_encoder("text_encoder_2")
    second = HunyuanVideo15Pipeline._get_byt5_prompt_embeds(*glyphs, prompt, device)
    return joined(*(without_padding(embedding[0], mask[0]) for embedding, mask in (first, second)))


def hunyuan_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X), pooled one first -> flow velocity (B, C, f, h, w)."""
    config = transformer.config
    pooled, tokens = text[:, 0, : config.pooled_projection_dim], text[:, 1:, : config.text_embed_dim]
    guidance = torch.full_like(timestep, 1000 * GUIDANCE, dtype=latents.dtype) if config.guidance_embeds else None
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


HUNYUAN_LAYOUT = FolderLayout(
    transformer=HunyuanVideoTransformer3DModel,
    vae=AutoencoderKLHunyuanVideo,
    text_encoders={"text_encoder": LlamaModel, "text_encoder_2": CLIPTextModel},
    encode_text=hunyuan_text,
    scales=scales,
    patches=patches,
    latent_statistics=statistics,
    objective=flow_objective,
    predict=hunyuan_predict,
    text_length=256,
    size=(544, 960),
    num_frames=49,
    fps=24.0,
    guidance_scale=1.0,
    num_steps=50,
    tokenizers=("tokenizer", "tokenizer_2"),
    step_arguments=even_sigmas,
)

HUNYUAN_15_LAYOUT = replace(
    HUNYUAN_LAYOUT,
    transformer=HunyuanVideo15Transformer3DModel,
    vae=AutoencoderKLHunyuanVideo15,
    text_encoders={"text_encoder": Qwen2_5_VLTextModel, "text_encoder_2": T5EncoderModel},
    encode_text=hunyuan_15_text,
    predict=hunyuan_15_predict,
    text_length=1000,
    size=(480, 848),
    guidance_scale=6.0,
    channels="out_channels",
)
