"""Writes two complete model folders with random weights, a few megabytes each, to try the whole path without a download.

python scripts/make_tiny_models.py OUT [--seed 0]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.utils import logging
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

TEXT_DIM = 32
CONDITION_DIM = 1024
IMAGE_SIZE = 32
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
SENTENCES = (
    "a photo of a dog sitting on the grass in front of a red house",
    "a video of a cat walking slowly across the kitchen table",
    "a woman in a blue jacket waves her hand, the camera moves to the left",
    "a small robot jumps up and down on a wooden floor",
    "two birds fly over the sea while the sun goes down",
    "a man plays the guitar in a quiet bamboo forest, soft light, high quality",
    "blurry, low quality, distorted, static, watermark, text",
)


def make_tokenizer() -> T5TokenizerFast:
    """Unigram pieces learned from a few sentences; single letters cover the other words."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=letters, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    vocabulary = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, additional_special_tokens=[], model_max_length=512)


def text_config(vocab_size: int) -> dict[str, int | str]:
    """Sizes of both text encoders."""
    return {
        "vocab_size": vocab_size,
        "d_model": TEXT_DIM,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def make_image_encoder(out: Path) -> None:
    """A vision tower with the projection width of OpenCLIP ViT-H/14 and CLIP's image preparation."""
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=8,
        projection_dim=CONDITION_DIM,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(out)
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(out)


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Gives vectors that start at zero or one a random part, so that a missing one shows in the output."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() <= 1 or not parameter.any():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def make_cogvideox(out: Path, generator: torch.Generator) -> None:
    """CogVideoX 5B's layout and schedule; default clip 64x96, 9 frames."""
    tokenizer = make_tokenizer()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=16,
        out_channels=16,
        time_embed_dim=64,
        text_embed_dim=TEXT_DIM,
        num_layers=4,
        sample_width=12,
        sample_height=8,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=226,
        use_rotary_positional_embeddings=True,
    )
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=16, norm_num_groups=4, scaling_factor=0.7
    )
    scheduler = CogVideoXDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )
    randomise(transformer, generator)
    text_encoder = T5EncoderModel(T5Config(**text_config(len(tokenizer))))
    CogVideoXPipeline(tokenizer, text_encoder, vae, transformer, scheduler).save_pretrained(out)
    make_image_encoder(out / "image_encoder")


def make_wan(out: Path, generator: torch.Generator) -> None:
    """Wan 2.1 text-to-video's layout and schedule."""
    tokenizer = make_tokenizer()
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=32,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_DIM,
        freq_dim=64,
        ffn_dim=128,
        num_layers=4,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=128,
    )
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True])
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0)
    randomise(transformer, generator)
    text_encoder = UMT5EncoderModel(UMT5Config(**text_config(len(tokenizer))))
    WanPipeline(tokenizer, text_encoder, vae, scheduler, transformer).save_pretrained(out)
    make_image_encoder(out / "image_encoder")


def make_tiny_models(out: Path, seed: int) -> dict[str, Path]:
    """Writes OUT/cogvideox-tiny and OUT/wan-tiny; the weights depend on the seed alone."""
    folders = {}
    for name, make in (("cogvideox", make_cogvideox), ("wan", make_wan)):
        folders[name] = out / f"{name}-tiny"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make(folders[name], torch.Generator().manual_seed(seed))
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder that receives cogvideox-tiny/ and wan-tiny/")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    for folder in make_tiny_models(arguments.out, arguments.seed).values():
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
