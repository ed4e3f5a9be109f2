"""Stock diffusers pipelines around tiny random DiTs; prompts come as embeddings and videos leave as latents, so nothing else is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from PIL import Image
from tiny import CHANNELS, CONDITION_DIM, TEXT_DIM, cogvideox, fill, hunyuan, hunyuan_15, ltx, ltx2, wan
from torch import nn

from dualreal_core.method.pair import AdapterPair, new_pair

NUM_STEPS, NUM_BLOCKS = 3, 2
Call = tuple[nn.Module, dict[str, object], torch.Tensor]
"""Of a DiT: what it was given by name, and what it put out."""


@dataclass(frozen=True)
class TinyPipeline:
    """A pipeline by the function that makes it, and the arguments that it is called with beside seed and guidance.

    Attributes:
        is_joint: one call of the DiT holds both prompts.
        guidance: name of the argument of that, or 'guider' where the pipeline has one.
    """

    make: Callable[[], DiffusionPipeline]
    arguments: Callable[[], dict[str, object]]
    is_joint: bool = False
    guidance: str = "guidance_scale"


def text(seed: int, num_tokens: int = 7, width: int = TEXT_DIM) -> torch.Tensor:
    return torch.randn(1, num_tokens, width, generator=torch.Generator().manual_seed(seed))


def quiet(pipe: DiffusionPipeline) -> DiffusionPipeline:
    pipe.set_progress_bar_config(disable=True)
    for name in ("transformer", "transformer_2"):
        if getattr(pipe, name, None) is not None:
            getattr(pipe, name).requires_grad_(False).eval()
    return pipe


def flow_scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def both_prompts() -> dict[str, object]:
    return {"prompt_embeds": text(1), "negative_prompt_embeds": text(2), "output_type": "latent"}


def small(height: int = 32, width: int = 48, num_frames: int = 9) -> dict[str, int]:
    return {"height": height, "width": width, "num_frames": num_frames, "num_inference_steps": NUM_STEPS}


def wan_pipeline() -> WanPipeline:
    return WanPipeline(None, None, None, flow_scheduler(), wan(NUM_BLOCKS))


def wan_experts() -> WanPipeline:
    return WanPipeline(None, None, None, flow_scheduler(), wan(NUM_BLOCKS), wan(NUM_BLOCKS, seed=1), boundary_ratio=0.8)


def wan_vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    statistics = {"latents_mean": [0.0] * CHANNELS, "latents_std": [1.0] * CHANNELS}
    return AutoencoderKLWan(base_dim=4, z_dim=CHANNELS, dim_mult=[1, 1, 2, 2], num_res_blocks=1, **statistics)


def wan_image() -> WanImageToVideoPipeline:
    """Wan 2.2 A14B's way: the first frame is given in more channels."""
    config = {**wan(NUM_BLOCKS).config, "in_channels": 2 * CHANNELS + 4}
    torch.manual_seed(0)
    return WanImageToVideoPipeline(None, None, wan_vae(), flow_scheduler(), transformer=WanTransformer3DModel.from_config(config))


def wan_clean_frame() -> WanImageToVideoPipeline:
    """Wan 2.2 5B's way: the first frame is clean, so tokens have timesteps of their own."""
    return WanImageToVideoPipeline(None, None, wan_vae(), flow_scheduler(), transformer=wan(NUM_BLOCKS), expand_timesteps=True)


def image() -> Image.Image:
    return Image.linear_gradient("L").resize((48, 32)).convert("RGB")


def cogvideox_scheduler(num_train_timesteps: int = 1000) -> CogVideoXDDIMScheduler:
    settings = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    return CogVideoXDDIMScheduler(num_train_timesteps, **settings)


def cogvideox_pipeline() -> CogVideoXPipeline:
    return CogVideoXPipeline(None, None, None, cogvideox(NUM_BLOCKS), cogvideox_scheduler())


def ltx_pipeline() -> LTXPipeline:
    """Its shift grows with the number of tokens, of which there are 12 here."""
    shift = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 4, "max_image_seq_len": 12}
    return LTXPipeline(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift), None, None, None, ltx(NUM_BLOCKS))


def ltx2_pipeline() -> LTX2Pipeline:
    """With sound, in 8 channels."""
    config = {**ltx2(NUM_BLOCKS).config, "audio_in_channels": 8, "audio_out_channels": 8}
    torch.manual_seed(0)
    ratios = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
    blocks = {"block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 3, "layers_per_block": (1,) * 5}
    vae = AutoencoderKLLTX2Video(latent_channels=CHANNELS, decoder_layers_per_block=(1,) * 4, **blocks, **ratios)
    audio_vae = AutoencoderKLLTX2Audio(base_channels=8, latent_channels=2, ch_mult=(1, 1, 1), num_res_blocks=1, mel_bins=16)
    heads = {f"{kind}_connector_{part}": size for kind in ("video", "audio") for part, size in CONNECTOR.items()}
    connectors = LTX2TextConnectors(caption_channels=TEXT_DIM, text_proj_in_factor=1, **heads)
    shift = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 4, "max_image_seq_len": 12}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift)
    transformer = LTX2VideoTransformer3DModel.from_config(config)
    return LTX2Pipeline(scheduler, vae, audio_vae, None, None, connectors, transformer, None)


CONNECTOR = {"num_attention_heads": 2, "attention_head_dim": TEXT_DIM // 2, "num_layers": 1, "num_learnable_registers": None}
ONE_CALL = {"stg_scale": 0.0, "modality_scale": 1.0, "audio_guidance_scale": None, "audio_stg_scale": None, "audio_modality_scale": None}
"""Without the further kinds of guidance of LTX-2, each of which is a call of its own."""


def hunyuan_pipeline() -> HunyuanVideoPipeline:
    return HunyuanVideoPipeline(None, None, hunyuan(1, 1), None, FlowMatchEulerDiscreteScheduler(shift=7.0), None, None)


def hunyuan_15_pipeline() -> HunyuanVideo15Pipeline:
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo15(latent_channels=CHANNELS, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1)
    scheduler, guider = FlowMatchEulerDiscreteScheduler(shift=5.0), ClassifierFreeGuidance()
    pipe = HunyuanVideo15Pipeline(None, None, hunyuan_15(NUM_BLOCKS), vae, scheduler, None, None, guider)
    pipe.vision_num_semantic_tokens = 4  # of the absent image
    return pipe


def masks(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([[1] * 5 + [0] * 2]) for name in names}


def pooled_prompts() -> dict[str, torch.Tensor]:
    both = {"pooled_prompt_embeds": text(3)[:, 0], "negative_pooled_prompt_embeds": text(4)[:, 0]}
    return {**both, **masks("prompt_attention_mask", "negative_prompt_attention_mask")}


def second_prompts() -> dict[str, torch.Tensor]:
    names = ("prompt_embeds_mask", "negative_prompt_embeds_mask", "prompt_embeds_mask_2", "negative_prompt_embeds_mask_2")
    return {"prompt_embeds_2": text(3), "negative_prompt_embeds_2": text(4), **masks(*names)}


PIPELINES: dict[str, TinyPipeline] = {
    "wan": TinyPipeline(wan_pipeline, lambda: {**small(), **both_prompts()}),
    "wan experts": TinyPipeline(wan_experts, lambda: {**small(), **both_prompts()}),
    "wan image": TinyPipeline(wan_image, lambda: {**small(), **both_prompts(), "image": image()}),
    "wan clean frame": TinyPipeline(wan_clean_frame, lambda: {**small(), **both_prompts(), "image": image()}),
    "cogvideox": TinyPipeline(cogvideox_pipeline, lambda: {**small(), **both_prompts()}, is_joint=True),
    "ltx": TinyPipeline(
        ltx_pipeline,
        lambda: {**small(64, 96), **both_prompts(), **masks("prompt_attention_mask", "negative_prompt_attention_mask")},
        is_joint=True,
    ),
    "ltx2": TinyPipeline(
        ltx2_pipeline,
        lambda: {**small(64, 96), **both_prompts(), **masks("prompt_attention_mask", "negative_prompt_attention_mask"), **ONE_CALL},
        is_joint=True,
    ),
    "hunyuan": TinyPipeline(hunyuan_pipeline, lambda: {**small(), **both_prompts(), **pooled_prompts()}, guidance="true_cfg_scale"),
    "hunyuan 1.5": TinyPipeline(hunyuan_15_pipeline, lambda: {**small(), **both_prompts(), **second_prompts()}, guidance="guider"),
}


def run(pipe: DiffusionPipeline, name: str, guidance: float = 3.0, seed: int = 5, **others: object) -> torch.Tensor:
    """The latents that a pipeline makes."""
    tiny = PIPELINES[name]
    if tiny.guidance == "guider":
        pipe.guider = pipe.guider.new(guidance_scale=guidance)
    else:
        others = {tiny.guidance: guidance, **others}
    arguments = {**tiny.arguments(), "generator": torch.Generator().manual_seed(seed), **others}
    return pipe(**arguments).frames


def transformers(pipe: DiffusionPipeline) -> list[nn.Module]:
    """The DiTs of a pipeline."""
    return [getattr(pipe, name) for name in ("transformer", "transformer_2") if getattr(pipe, name, None) is not None]


def pair_for(pipe: DiffusionPipeline, is_trained: bool = True) -> AdapterPair:
    settings = {"identity_kind": "lora", "motion_kind": "bottleneck", "rank": 2, "bottleneck_dim": 4, "motion_condition_dim": CONDITION_DIM}
    pair = new_pair(pipe.transformer, learned_range=0.01, share_schedule=(0.3, 0.9), **settings)
    return fill(pair) if is_trained else pair


@contextmanager
def listened(pipe: DiffusionPipeline) -> Iterator[list[Call]]:
    """The calls of a pipeline's DiTs, with what each put out."""
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple, kwargs: dict, output: tuple) -> None:
        calls.append((module, kwargs, output[0]))

    handles = [one.register_forward_hook(note, with_kwargs=True) for one in transformers(pipe)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
