"""The rows of the kinds of model folders that are known, and those of CogVideoX and Wan with the functions they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan, CogVideoXTransformer3DModel, WanTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn
from transformers import T5EncoderModel, UMT5EncoderModel

from ..objective import FlowMatching, Objective, VPrediction
from .folder_layout import Config, FolderLayout, TextEncoders
from .hunyuan_folders import HUNYUAN_15_LAYOUT, HUNYUAN_LAYOUT
from .ltx_folders import LTX2_LAYOUT, LTX_LAYOUT


def cogvideox_scales(vae: Config) -> tuple[int, int]:
    """Temporal compression as configured; every down block but the last halves the sides."""
    return int(vae.get("temporal_compression_ratio", 4)), 2 ** (len(vae.get("block_out_channels", (128, 256, 256, 512))) - 1)


def t5_text(
    encoders: TextEncoders, prompt: str, length: int, masks_text: bool = False, cleans_text: Callable[[str], str] = str
) -> torch.Tensor:
    """(T, X); with `masks_text` padding is hidden from the text encoder and zero in its output."""
    tokens = encoders.tokenizer()(
        [cleans_text(prompt)],
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(encoders.device)
    if not masks_text:
        return encoders.text_encoder()(tokens.input_ids)[0][0]
    mask = tokens.attention_mask
    hidden = encoders.text_encoder()(tokens.input_ids, mask)[0]
    return hidden[0].masked_fill(mask[0, :, None] == 0, 0)


def wan_scales(vae: Config) -> tuple[int, int]:
    """As configured; files older than these two entries are 4 x 8."""
    return int(vae.get("scale_factor_temporal", 4)), int(vae.get("scale_factor_spatial", 8))


def cogvideox_patches(transformer: Config) -> tuple[int, int, int]:
    """Square patches; version 1.5 also joins latent frames."""
    return int(transformer.get("patch_size_t") or 1), int(transformer["patch_size"]), int(transformer["patch_size"])


def wan_patches(transformer: Config) -> tuple[int, int, int]:
    """As configured."""
    return tuple(transformer["patch_size"])


def cogvideox_statistics(vae: Config, _folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw latents times the scaling factor are what the DiT sees."""
    return torch.zeros(1), 1 / torch.tensor([float(vae.get("scaling_factor", 1.15258426))])


def wan_statistics(vae: Config, _folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel (C, 1, 1, 1)."""
    return torch.tensor(vae["latents_mean"]).reshape(-1, 1, 1, 1), torch.tensor(vae["latents_std"]).reshape(-1, 1, 1, 1)


def cogvideox_objective(scheduler: SchedulerMixin) -> Objective:
    """v-prediction on the scheduler's noise levels, kept in float64."""
    if scheduler.config.get("prediction_type") != "v_prediction":
        raise ValueError(f"prediction_type is {scheduler.config.get('prediction_type')!r}, not 'v_prediction'")
    return VPrediction(tuple(scheduler.alphas_cumprod.double().tolist()))


def wan_objective(scheduler: SchedulerMixin) -> Objective:
    """Flow matching with the shift of the sampler: `flow_shift` (UniPC) or `shift` (Euler)."""
    shift = scheduler.config.get("flow_shift" if scheduler.config.get("use_flow_sigmas") else "shift")
    if scheduler.config.get("use_dynamic_shifting"):
        raise ValueError("its use_dynamic_shifting moves the shift with the size of the video, and Wan is trained with one shift")
    if shift is None:
        raise ValueError("it has neither flow sigmas with flow_shift nor shift")
    return FlowMatching(shift=float(shift), timestep_scale=float(scheduler.config.num_train_timesteps))


def cogvideox_rotary(transformer: nn.Module, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosines and sines (tokens, head dim) float32 for latents (B, C, f, h, w), as CogVideoXPipeline prepares them."""
    config = transformer.config
    if not config.use_rotary_positional_embeddings:
        return None
    num_frames, height, width = latents.shape[2:]
    grid = (height // config.patch_size, width // config.patch_size)
    base_height, base_width = config.sample_height // config.patch_size, config.sample_width // config.patch_size
    if config.patch_size_t is None:
        return get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, base_width, base_height),
            grid_size=grid,
            temporal_size=num_frames,
            device=latents.device,
        )
    return get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim,
        crops_coords=None,
        grid_size=grid,
        temporal_size=num_frames // config.patch_size_t,
        grid_type="slice",
        max_size=(base_height, base_width),
        device=latents.device,
    )


def cogvideox_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X) -> v (B, C, f, h, w)."""
    output = transformer(
        hidden_states=latents.transpose(1, 2),
        encoder_hidden_states=text,
        timestep=timestep,
        image_rotary_emb=cogvideox_rotary(transformer, latents),
        return_dict=False,
    )[0]  # (B, f, C, h, w)
    return output.transpose(1, 2)


def wan_predict(transformer: nn.Module, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """latents: (B, C, f, h, w), timestep: (B,), text: (B, T, X) -> flow velocity (B, C, f, h, w)."""
    return transformer(hidden_states=latents, timestep=timestep, encoder_hidden_states=text, return_dict=False)[0]


COGVIDEOX_LAYOUT = FolderLayout(
    transformer=CogVideoXTransformer3DModel,
    vae=AutoencoderKLCogVideoX,
    text_encoders={"text_encoder": T5EncoderModel},
    encode_text=t5_text,
    frames_first=True,
    scales=cogvideox_scales,
    latent_frame_group=2,
    patches=cogvideox_patches,
    latent_statistics=cogvideox_statistics,
    objective=cogvideox_objective,
    predict=cogvideox_predict,
    text_length=226,
    size=None,
    num_frames=49,
    fps=8.0,
    guidance_scale=6.0,
    num_steps=50,
)

COGVIDEOX_15_LAYOUT = replace(COGVIDEOX_LAYOUT, size=(768, 1360), num_frames=81, fps=16.0)

WAN_LAYOUT = FolderLayout(
    transformer=WanTransformer3DModel,
    vae=AutoencoderKLWan,
    text_encoders={"text_encoder": UMT5EncoderModel},
    vae_dtype=torch.float32,
    encode_text=partial(t5_text, masks_text=True, cleans_text=prompt_clean),
    scales=wan_scales,
    patches=wan_patches,
    latent_statistics=wan_statistics,
    objective=wan_objective,
    predict=wan_predict,
    text_length=512,
    size=(480, 832),
    num_frames=49,
    fps=16.0,
    guidance_scale=5.0,
    num_steps=50,
)

WAN_22_5B_LAYOUT = replace(WAN_LAYOUT, size=(704, 1280), fps=24.0)


def _cogvideox(transformer: Config) -> FolderLayout:
    """Version 1.5 is known by its temporal patches."""
    return COGVIDEOX_LAYOUT if transformer.get("patch_size_t") is None else COGVIDEOX_15_LAYOUT


def _wan(transformer: Config) -> FolderLayout:
    """The 5B model of Wan 2.2 is known by its latents."""
    return WAN_22_5B_LAYOUT if transformer.get("in_channels") == 48 else WAN_LAYOUT


PIPELINES: Mapping[str, Callable[[Config], FolderLayout]] = {
    "CogVideoXPipeline": _cogvideox,
    "WanPipeline": _wan,
    "LTXPipeline": lambda _: LTX_LAYOUT,
    "LTX2Pipeline": lambda _: LTX2_LAYOUT,
    "HunyuanVideoPipeline": lambda _: HUNYUAN_LAYOUT,
    "HunyuanVideo15Pipeline": lambda _: HUNYUAN_15_LAYOUT,
}
"""By class of the pipeline, from the transformer's config."""


def layout_of(pipeline: str, transformer: Config) -> FolderLayout:
    """The row for one of `PIPELINES` and its transformer's config."""
    return PIPELINES[pipeline](transformer)
