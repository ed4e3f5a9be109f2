"""Model folders of LTX-Video and LTX-2, of which the video alone is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from safetensors import safe_open
from torch import nn
from transformers import Gemma3ForConditionalGeneration, T5EncoderModel

from .folder_layout import Config, FolderLayout, TextEncoders
from .noise_schedules import even_sigmas, flow_objective
from .texts import text_mask, without_padding

LTX_FPS, LTX2_FPS = 25.0, 24.0


def scales(vae: Config) -> tuple[int, int]:
    """As configured; else each of the scaling steps halves the patches."""
    patch_t, patch = int(vae.get("patch_size_t", 1)), int(vae.get("patch_size", 4))
    halvings = sum(map(bool, vae.get("spatio_temporal_scaling", (True, True, True))))
    temporal, spatial = vae.get("temporal_compression_ratio"), vae.get("spatial_compression_ratio")
    return int(temporal or patch_t * 2**halvings), int(spatial or patch * 2**halvings)


def patches(transformer: Config) -> tuple[int, int, int]:
    """One latent is one token.

    Raises:
        ValueError: it is not.
    """
    sizes = int(transformer.get("patch_size_t", 1)), int(transformer.get("patch_size", 1))
    if sizes != (1, 1):
        raise ValueError(f"its transformer joins {sizes[0]} x {sizes[1]} x {sizes[1]} latents to a token")
    return 1, 1, 1


def statistics(vae: Config, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel (C, 1, 1, 1), which are among the VAE's weights.

    Raises:
        KeyError: they are not.
    """
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in ("latents_mean", "latents_std") if name in file.keys()}  # noqa: SIM118
    mean, std = (found[name].float().reshape(-1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    return mean, std / float(vae.get("scaling_factor", 1.0))


def ltx_text(encoders: TextEncoders, prompt: str, length: int) -> torch.Tensor:
    """(T, X) without padding"""
    pipeline = LTXPipeline(None, None, encoders.text_encoder(), encoders.tokenizer(), None)
    embedding, mask, *_ = pipeline.encode_prompt(prompt, None, False, max_sequence_length=length, device=encoders.device)
    return without_padding(embedding[0], mask[0])


def ltx2_text(encoders: TextEncoders, prompt: str, length: int) -> torch.Tensor:
    """(T, X) of the video's connector, without padding"""
    tokenizer = encoders.tokenizer()
    pipeline = LTX2Pipeline(None, None, None, encoders.text_encoder(), tokenizer, None, None, None)
    embedding, mask, *_ = pipeline.encode_prompt(prompt, None, False, max_sequence_length=length, device=encoders.device)
    video, _, video_mask = encoders.text_encoder("connectors")(embedding, mask, padding_side=tokenizer.padding_side)
    return without_padding(video[0], video_mask[0])


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


LTX_LAYOUT = FolderLayout(
    transformer=LTXVideoTransformer3DModel,
    vae=AutoencoderKLLTXVideo,
    text_encoders={"text_encoder": T5EncoderModel},
    encode_text=ltx_text,
    scales=scales,
    patches=patches,
    latent_statistics=statistics,
    objective=flow_objective,
    predict=ltx_predict,
    text_length=128,
    size=(512, 704),
    num_frames=49,
    fps=LTX_FPS,
    guidance_scale=3.0,
    num_steps=50,
    step_arguments=even_sigmas,
)

LTX2_LAYOUT = replace(
    LTX_LAYOUT,
    transformer=LTX2VideoTransformer3DModel,
    vae=AutoencoderKLLTX2Video,
    text_encoders={"text_encoder": Gemma3ForConditionalGeneration, "connectors": LTX2TextConnectors},
    encode_text=ltx2_text,
    predict=ltx2_predict,
    text_length=1024,
    size=(512, 768),
    fps=LTX2_FPS,
    num_steps=40,
)
