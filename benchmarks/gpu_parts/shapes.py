"""The models that the check measures, with the sizes of the published checkpoints and random weights; and a tiny form of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from torch import nn

from dualreal_core.bases.base import pad_texts
from dualreal_core.bases.denoising import denoise
from dualreal_core.bases.folder_layouts import cogvideox_predict, wan_predict
from dualreal_core.dataset import PreparedItem
from dualreal_core.families import family_of
from dualreal_core.objective import FlowMatching, VPrediction

WAN_13B = {
    "patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096,
    "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
WAN_14B = {**WAN_13B, "num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
WAN_TINY = {**WAN_13B, "num_attention_heads": 2, "attention_head_dim": 16, "text_dim": 8, "freq_dim": 32, "ffn_dim": 48, "num_layers": 3}
COGVIDEOX_5B = {
    "num_attention_heads": 48, "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "time_embed_dim": 512,
    "text_embed_dim": 4096, "num_layers": 42, "sample_width": 90, "sample_height": 60, "sample_frames": 49, "patch_size": 2,
    "max_text_seq_length": 226, "use_rotary_positional_embeddings": True,
}  # fmt: skip
COGVIDEOX_TINY = {
    **COGVIDEOX_5B, "num_attention_heads": 2, "attention_head_dim": 16, "time_embed_dim": 24, "text_embed_dim": 8, "num_layers": 3,
    "sample_width": 12, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": 7,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A model and what is put through it.

    Attributes:
        family: 'wan' or 'cogvideox'.
        config: of the diffusers class.
        clip: what the latents are, in words.
        latents: (C, f, h, w).
        text: (T, X).
        checkpoints: training runs blocks again for the backward pass, as it else would not fit 80 GB.
        repeats: timed runs of each kind, after one to warm up.
    """

    family: str
    config: Mapping[str, object] = field(repr=False)
    clip: str
    latents: tuple[int, int, int, int]
    text: tuple[int, int]
    checkpoints: bool
    repeats: int


SHAPES = {
    "wan-1.3b": Shape("wan", WAN_13B, "480x832, 33 frames", (16, 9, 60, 104), (512, 4096), False, 5),
    "wan-14b": Shape("wan", WAN_14B, "480x832, 33 frames", (16, 9, 60, 104), (512, 4096), True, 2),
    "cogvideox-5b": Shape("cogvideox", COGVIDEOX_5B, "480x720, 49 frames", (16, 13, 60, 90), (226, 4096), True, 2),
}


def tiny(shape: Shape) -> Shape:
    """The same kind of model at a size for tests."""
    config = WAN_TINY if shape.family == "wan" else COGVIDEOX_TINY
    return replace(shape, config=config, clip="tiny", latents=(16, 3, 4, 6), text=(7, 8), repeats=1)


class RandomBase:
    """A base (`dualreal_core.bases.base.Base`) of random weights, made where it runs: the members that training and sampling use."""

    name = "random"
    condition_dim = None
    fingerprint = "random"

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        is_wan = shape.family == "wan"
        torch.manual_seed(0)
        with torch.device(device):
            self.transformer: nn.Module = (WanTransformer3DModel if is_wan else CogVideoXTransformer3DModel)(**shape.config)
        for weight in self.transformer.parameters():  # not the tables of positions, which the libraries keep in float32
            weight.data = weight.data.to(dtype)
        self.transformer.requires_grad_(False).eval()
        self.shape, self.device, self.dtype = shape, device, dtype
        self.family = family_of(self.transformer)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0) if is_wan else CogVideoXDPMScheduler()
        self.denoise = partial(denoise, scheduler, frames_first=not is_wan)
        self.objective = FlowMatching(shift=3.0) if is_wan else VPrediction(tuple(scheduler.alphas_cumprod.tolist()))

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.family.compute_dtype(self.transformer)

    def batch_texts(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        return pad_texts(texts).to(self.device)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        return self.shape.latents

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        predict = wan_predict if self.family.name == "wan" else cogvideox_predict
        return predict(self.transformer, latents.to(self.dtype), timestep, text.to(self.dtype))

    def clip(self) -> PreparedItem:
        """A clip of noise with a prompt of noise."""
        generator = torch.Generator().manual_seed(1)
        latents, text = (torch.randn(size, generator=generator) for size in (self.shape.latents, self.shape.text))
        return PreparedItem(latents=latents, text=text, conditions=None, mask=None, source="noise")
