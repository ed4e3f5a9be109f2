"""Complete model folders with random weights, beside those of `scripts/make_tiny_models.py`: the kinds of models whose folders are read."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from transformers import (
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make_tiny_models.py"))
TEXT_DIM, CHANNELS = SCRIPT["TEXT_DIM"], 16
DIT = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}
LANGUAGE = {"hidden_size": TEXT_DIM, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2}
LETTERS = 259
"""Of ByT5: bytes and three marks."""


def tokenizer_for_chats() -> PreTrainedTokenizerFast:
    """The pieces of the T5 tokenizer, padded on the right, with a plain form of a talk."""
    base = SCRIPT["make_tokenizer"]()
    template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=base.backend_tokenizer, chat_template=template, model_max_length=2000, **marks)


def ltx() -> LTXPipeline:
    tokenizer = SCRIPT["make_tokenizer"]()
    transformer = LTXVideoTransformer3DModel(
        **DIT, in_channels=CHANNELS, out_channels=CHANNELS, cross_attention_dim=32, caption_channels=TEXT_DIM
    )
    blocks = {"block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4, "layers_per_block": (1,) * 5}
    vae = AutoencoderKLLTXVideo(latent_channels=CHANNELS, decoder_layers_per_block=(1,) * 5, timestep_conditioning=True, **blocks)
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.5, 2, CHANNELS))
    shift = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "max_image_seq_len": 4096, "shift_terminal": 0.1}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift)
    return LTXPipeline(scheduler, vae, T5EncoderModel(T5Config(**SCRIPT["text_config"](len(tokenizer)))), tokenizer, transformer)


def ltx2() -> LTX2Pipeline:
    tokenizer = tokenizer_for_chats()
    text = {**LANGUAGE, "vocab_size": len(tokenizer), "head_dim": 16, "sliding_window": 8}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8, "patch_size": 4}
    marks = {"image_token_index": 3, "boi_token_index": 4, "eoi_token_index": 5, "mm_tokens_per_image": 4}
    gemma = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, **marks))
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "num_learnable_registers": 8}
    heads = {f"{kind}_connector_{part}": size for kind in ("video", "audio") for part, size in sizes.items()}
    connectors = LTX2TextConnectors(caption_channels=TEXT_DIM, text_proj_in_factor=1 + LANGUAGE["num_hidden_layers"], **heads)
    sound = {"audio_in_channels": 8, "audio_out_channels": 8, "audio_num_attention_heads": 2, "audio_attention_head_dim": 8}
    video = {"in_channels": CHANNELS, "out_channels": CHANNELS, "cross_attention_dim": 32, "caption_channels": TEXT_DIM}
    transformer = LTX2VideoTransformer3DModel(**DIT, **video, **sound, audio_cross_attention_dim=16, rope_type="split")
    blocks = {"block_out_channels": (8,) * 4, "decoder_block_out_channels": (8, 16, 32), "layers_per_block": (1,) * 5}
    ratios = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
    vae = AutoencoderKLLTX2Video(latent_channels=CHANNELS, decoder_layers_per_block=(1,) * 4, **blocks, **ratios)
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, CHANNELS))
    audio_vae = AutoencoderKLLTX2Audio(base_channels=8, latent_channels=2, ch_mult=(1, 1, 1), num_res_blocks=1, mel_bins=16)
    shift = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "max_image_seq_len": 4096, "shift_terminal": 0.1}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shift)
    return LTX2Pipeline(scheduler, vae, audio_vae, gemma, tokenizer, connectors, transformer, None)


def hunyuan() -> HunyuanVideoPipeline:
    tokenizer = tokenizer_for_chats()
    transformer = HunyuanVideoTransformer3DModel(
        **DIT,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_single_layers=2,
        text_embed_dim=TEXT_DIM,
        pooled_projection_dim=24,
        rope_axes_dim=(4, 6, 6),
    )
    vae = AutoencoderKLHunyuanVideo(latent_channels=CHANNELS, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4)
    clip = {"vocab_size": len(tokenizer), "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return HunyuanVideoPipeline(
        LlamaModel(LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE)),
        tokenizer,
        transformer,
        vae,
        FlowMatchEulerDiscreteScheduler(shift=7.0),
        CLIPTextModel(CLIPTextConfig(eos_token_id=1, pad_token_id=0, **clip)),
        tokenizer_for_chats(),
    )


def hunyuan_15() -> HunyuanVideo15Pipeline:
    tokenizer = tokenizer_for_chats()
    transformer = HunyuanVideo15Transformer3DModel(
        **DIT,
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_refiner_layers=1,
        text_embed_dim=TEXT_DIM,
        text_embed_2_dim=40,
        image_embed_dim=8,
        rope_axes_dim=(4, 6, 6),
    )
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}}
    glyphs = {**SCRIPT["text_config"](LETTERS), "d_model": 40}
    return HunyuanVideo15Pipeline(
        Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(vocab_size=len(tokenizer), **LANGUAGE, **rope)),
        tokenizer,
        transformer,
        AutoencoderKLHunyuanVideo15(latent_channels=CHANNELS, block_out_channels=(32,) * 5, layers_per_block=1),
        FlowMatchEulerDiscreteScheduler(shift=5.0),
        T5EncoderModel(T5Config(**glyphs)),
        ByT5Tokenizer(extra_ids=0),
        ClassifierFreeGuidance(guidance_scale=6.0),
    )


def wan_5b() -> WanPipeline:
    tokenizer = SCRIPT["make_tokenizer"]()
    transformer = WanTransformer3DModel(**DIT, in_channels=48, out_channels=48, text_dim=TEXT_DIM, freq_dim=64, ffn_dim=48)
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=48,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        is_residual=True,
        latents_mean=torch.linspace(-0.5, 0.5, 48).tolist(),
        latents_std=torch.linspace(0.5, 2, 48).tolist(),
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=5.0)
    text_encoder = UMT5EncoderModel(UMT5Config(**SCRIPT["text_config"](len(tokenizer))))
    return WanPipeline(tokenizer, text_encoder, vae, scheduler, transformer, expand_timesteps=True)


MAKERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "ltx": ltx,
    "ltx2": ltx2,
    "hunyuan": hunyuan,
    "hunyuan 1.5": hunyuan_15,
    "wan 5b": wan_5b,
}


def make_folder(name: str, out: Path) -> Path:
    """Writes the folder of a kind of model; the weights depend on the kind alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = MAKERS[name]()
        SCRIPT["randomise"](pipeline.transformer, torch.Generator().manual_seed(0))
    pipeline.save_pretrained(out)
    return out
