"""The toy world as ComfyUI's own kinds of model: its DiT is ComfyUI's Wan, its text a CLIP, its codec a VAE."""

from __future__ import annotations

import math
from typing import ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch

from ..dualreal_core.errors import InputError
from ..dualreal_core.toyworld.codec import CELLS_PER_LATENT, ToyCodec
from ..dualreal_core.toyworld.config import LATENT_CHANNELS, TRANSFORMER_CONFIG
from ..dualreal_core.toyworld.model import (
    SHIFT,
    load_codec,
    load_weights,
    native_weights,
    position_planes,
)
from ..dualreal_core.toyworld.preview import fit_latent_colors
from ..dualreal_core.toyworld.text import embed_words, words_of
from ..dualreal_core.toyworld.world import FRAME_CELLS, NUM_FRAMES

CODEC_NUMBERS_PER_LATENT = 1024
"""Numbers that the codec keeps at a time for each latent cell: eight feature maps of 128 channels."""


def load_model(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The DiT as a MODEL. ComfyUI calls this again for a copy of its own, for example to train one.

    Weights are float32 unless ComfyUI was started with another type for all diffusion models.
    """
    weights = native_weights(load_weights("transformer"))
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    dtypes = ToyWorldConfig.supported_inference_dtypes
    dtype = comfy.model_management.unet_dtype(model_params=sum(weight.numel() for weight in weights.values()), supported_dtypes=dtypes)
    config = ToyWorldConfig(_wan_config())
    config.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, load_device, dtypes), device=load_device)
    model = config.get_model(weights).to(offload_device)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=load_device, offload_device=offload_device)
    model.load_model_weights(weights, assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_model, ())
    return patcher


def load_clip() -> comfy.sd.CLIP:
    """The text embedding as a CLIP. It has no weights and hashes words, so it stays on the CPU."""
    target = comfy.supported_models_base.ClipTarget(ToyTokenizer, ToyTextEncoder)
    cpu = torch.device("cpu")
    clip = comfy.sd.CLIP(target, model_options={"load_device": cpu, "offload_device": cpu, "dtype": torch.float32})
    clip.patcher.cached_patcher_init = (lambda disable_dynamic=False: load_clip().patcher, ())
    return clip


def load_vae() -> comfy.sd.VAE:
    """The codec as a VAE."""
    vae = ToyVAE()
    vae.patcher.cached_patcher_init = (lambda disable_dynamic=False: load_vae().patcher, ())
    return vae


def empty_latent(batch_size: int = 1) -> dict[str, torch.Tensor | int]:
    """A LATENT of the clips the toy world was trained on. samples: (batch_size, 16, 9, 8, 8) zeros."""
    side = FRAME_CELLS // CELLS_PER_LATENT
    device, dtype = comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype()
    samples = torch.zeros(batch_size, LATENT_CHANNELS, NUM_FRAMES, side, side, device=device, dtype=dtype)
    return {"samples": samples, "downscale_ratio_spacial": CELLS_PER_LATENT, "downscale_ratio_temporal": 1}


class ToyWorldLatents(comfy.latent_formats.LatentFormat):
    """The codec's latents are normalised already; every frame has its own."""

    latent_channels = LATENT_CHANNELS
    latent_dimensions = 3
    spacial_downscale_ratio = CELLS_PER_LATENT
    temporal_downscale_ratio = 1

    def __init__(self) -> None:
        factors, bias = fit_latent_colors(load_codec())
        self.latent_rgb_factors = factors.tolist()
        self.latent_rgb_factors_bias = bias.tolist()


class ToyWorldModel(comfy.model_base.WAN21):
    """Wan that reads position planes behind its latents."""

    def concat_cond(self, *, noise: torch.Tensor, device: torch.device, **_: object) -> torch.Tensor:
        """noise: (B, 16, F, h, w) -> planes (B, 16, F, h, w)."""
        if noise.shape[1] != LATENT_CHANNELS:
            raise InputError(
                f"The latent has {noise.shape[1]} channels and the embedded model works on {LATENT_CHANNELS}: "
                "encode with its own VAE or wire its own LATENT."
            )
        planes = position_planes(*noise.shape[2:]).to(device, noise.dtype)
        return planes.expand(len(noise), -1, -1, -1, -1)


class ToyWorldConfig(comfy.supported_models.WAN21_T2V):
    """ComfyUI's settings for Wan, with the toy world's schedule and latents; small enough to stay float32."""

    sampling_settings: ClassVar[dict[str, float]] = {"shift": SHIFT}
    latent_format = ToyWorldLatents
    supported_inference_dtypes: ClassVar[list[torch.dtype]] = [torch.float32]

    def get_model(self, state_dict: dict[str, torch.Tensor], prefix: str = "", device: torch.device | None = None) -> ToyWorldModel:
        return ToyWorldModel(self, device=device)


class ToyTokenizer:
    """Words with weights: `(word:1.3)` and `(word)` as in other CLIPs, `\\(` for a parenthesis itself."""

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict[str, torch.Tensor] | None = None) -> None:
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: object) -> dict[str, list[list[tuple]]]:
        tokens = []
        for segment, weight in comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0):
            tokens += [(word, weight) for word in words_of(comfy.sd1_clip.unescape_important(segment))]
        if return_word_ids:
            tokens = [(word, weight, index + 1) for index, (word, weight) in enumerate(tokens)]
        return {"toyworld": [tokens]}

    def untokenize(self, tokens: list[tuple]) -> list[tuple]:
        return [(token, token[0]) for token in tokens]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}


class ToyTextEncoder(torch.nn.Module):
    """The frozen word vectors; a word's weight scales its vector, which is what it means where empty text is zeros."""

    disable_offload = True

    def __init__(self, device: torch.device, dtype: torch.dtype, model_options: dict[str, object]) -> None:
        super().__init__()
        self.dtypes = {dtype}

    def set_clip_options(self, options: dict[str, object]) -> None:
        pass

    def reset_clip_options(self) -> None:
        pass

    def encode_token_weights(self, tokens: dict[str, list[list[tuple]]]) -> tuple[torch.Tensor, None]:
        """-> embedding (1, T, 128) with T at least 16, and no pooled embedding."""
        words = tokens["toyworld"][0]
        embedded = embed_words([word for word, *_ in words])
        embedded[: len(words)] *= torch.tensor([weight for _, weight, *_ in words])[:, None]
        return embedded[None].to(comfy.model_management.intermediate_device()), None


class ToyVideoCodec(ToyCodec):
    """The codec for whole clips."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """frames: (B, 3, F, H, W) in [-1, 1] -> (B, 16, F, H/4, W/4)."""
        return super().encode(frames.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(frames), -1)).transpose(1, 2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: (B, 16, F, h, w) -> (B, 3, F, 4h, 4w), about [-1, 1]."""
        return super().decode(latents.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(latents), -1)).transpose(1, 2)


class ToyVAE(comfy.sd.VAE):
    """ComfyUI's VAE around the codec. Built as the simplest kind it knows, so that no attribute is missing."""

    def __init__(self) -> None:
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
        codec = ToyVideoCodec()
        codec.load_state_dict(load_weights("codec"))
        self.first_stage_model = codec.requires_grad_(False).eval()
        self.latent_channels = LATENT_CHANNELS
        self.latent_dim = 3
        self.upscale_ratio = self.downscale_ratio = (lambda frames: frames, CELLS_PER_LATENT, CELLS_PER_LATENT)
        self.upscale_index_formula = self.downscale_index_formula = (1, CELLS_PER_LATENT, CELLS_PER_LATENT)
        self.memory_used_decode = lambda shape, dtype: _codec_bytes(math.prod(shape[2:]), dtype)
        self.memory_used_encode = lambda shape, dtype: _codec_bytes(math.prod(shape[2:]) / CELLS_PER_LATENT**2, dtype)
        comfy.model_management.archive_model_dtypes(codec)
        self.patcher = comfy.model_patcher.ModelPatcher(codec, self.patcher.load_device, self.patcher.offload_device)
        self.size = None
        self.model_size()


def _wan_config() -> dict[str, object]:
    """The DiT's configuration in the words of ComfyUI's Wan."""
    config = TRANSFORMER_CONFIG
    return {
        "image_model": "wan2.1",
        "model_type": "t2v",
        "in_dim": config["in_channels"],
        "out_dim": config["out_channels"],
        "dim": config["num_attention_heads"] * config["attention_head_dim"],
        "num_heads": config["num_attention_heads"],
        **{name: config[name] for name in ("patch_size", "ffn_dim", "freq_dim", "text_dim", "num_layers", "cross_attn_norm", "eps")},
    }


def _codec_bytes(num_cells: float, dtype: torch.dtype) -> float:
    return num_cells * CODEC_NUMBERS_PER_LATENT * comfy.model_management.dtype_size(dtype)
