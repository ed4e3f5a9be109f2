"""What sets the model folders apart: one row per kind of diffusers pipeline, plus the functions a row needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan, CogVideoXTransformer3DModel, WanTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn
from transformers import PreTrainedModel, T5EncoderModel, UMT5EncoderModel

from ..objective import FlowMatching, Objective, VPrediction

Config = Mapping[str, object]


@dataclass(frozen=True)
class FolderLayout:
    """One kind of model folder.

    Attributes:
        transformer, vae, text_encoder: classes of the components.
        vae_dtype: dtype the VAE needs, or None for that of the transformer.
        masks_text: padding is hidden from the text encoder and zero in its output.
        cleans_text: what happens to a prompt first.
        frames_first: the scheduler works on (B, f, C, h, w).
        scales: (temporal, spatial) pixels per latent, from the VAE's config.
        latent_frame_group: latent frames after the first come in groups of so many (CogVideoX's VAE decodes pairs: an even
            number of latent frames would give three frames too many).
        patches: (temporal, vertical, horizontal) latents per token, from the transformer's config.
        latent_statistics: mean and standard deviation of raw latents, from the VAE's config; both broadcast to (C, f, h, w).
        objective: from the scheduler; raises ValueError where the scheduler serves another prediction.
        predict: (transformer, latents (B, C, f, h, w), timestep (B,), text (B, T, X)) -> (B, C, f, h, w).
        text_length: T where the transformer's config names none.
        size: default (height, width), or None: the transformer's sample size.
        num_frames: default where the transformer's config names none.
        fps, guidance_scale, num_steps: defaults.
    """

    transformer: type[nn.Module]
    vae: type[nn.Module]
    text_encoder: type[PreTrainedModel]
    vae_dtype: torch.dtype | None
    masks_text: bool
    cleans_text: Callable[[str], str]
    frames_first: bool
    scales: Callable[[Config], tuple[int, int]]
    latent_frame_group: int
    patches: Callable[[Config], tuple[int, int, int]]
    latent_statistics: Callable[[Config], tuple[torch.Tensor, torch.Tensor]]
    objective: Callable[[SchedulerMixin], Objective]
    predict: Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    text_length: int
    size: tuple[int, int] | None
    num_frames: int
    fps: float
    guidance_scale: float
    num_steps: int


def cogvideox_scales(vae: Config) -> tuple[int, int]:
    """Temporal compression as configured; every down block but the last halves the sides."""
    return int(vae.get("temporal_compression_ratio", 4)), 2 ** (len(vae.get("block_out_channels", (128, 256, 256, 512))) - 1)


def wan_scales(vae: Config) -> tuple[int, int]:
    """As configured; files older than these two entries are 4 x 8."""
    return int(vae.get("scale_factor_temporal", 4)), int(vae.get("scale_factor_spatial", 8))


def cogvideox_patches(transformer: Config) -> tuple[int, int, int]:
    """Square patches; version 1.5 also joins latent frames."""
    return int(transformer.get("patch_size_t") or 1), int(transformer["patch_size"]), int(transformer["patch_size"])


def wan_patches(transformer: Config) -> tuple[int, int, int]:
    """As configured."""
    return tuple(transformer["patch_size"])


def cogvideox_statistics(vae: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw latents times the scaling factor are what the DiT sees."""
    return torch.zeros(1), 1 / torch.tensor([float(vae.get("scaling_factor", 1.15258426))])


def wan_statistics(vae: Config) -> tuple[torch.Tensor, torch.Tensor]:
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
    text_encoder=T5EncoderModel,
    vae_dtype=None,
    masks_text=False,
    cleans_text=str,
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
    text_encoder=UMT5EncoderModel,
    vae_dtype=torch.float32,
    masks_text=True,
    cleans_text=prompt_clean,
    frames_first=False,
    scales=wan_scales,
    latent_frame_group=1,
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

PIPELINES = ("CogVideoXPipeline", "WanPipeline")


def layout_of(pipeline: str, transformer: Config) -> FolderLayout:
    """The row for one of `PIPELINES` and its transformer's config; CogVideoX 1.5 is known by its temporal patches."""
    if pipeline == "WanPipeline":
        return WAN_LAYOUT
    return COGVIDEOX_LAYOUT if transformer.get("patch_size_t") is None else COGVIDEOX_15_LAYOUT
