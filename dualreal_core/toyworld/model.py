"""The embedded base as a model: configuration of its DiT and the position planes it reads."""

from __future__ import annotations

import math

import torch

from .codec import LATENT_CHANNELS
from .text import TEXT_DIM

NUM_PLANES = 16

TRANSFORMER_CONFIG = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 128,
    "in_channels": LATENT_CHANNELS + NUM_PLANES,
    "out_channels": LATENT_CHANNELS,
    "text_dim": TEXT_DIM,
    "freq_dim": 256,
    "ffn_dim": 768,
    "num_layers": 5,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 64,
}


def position_planes(num_frames: int, height: int, width: int) -> torch.Tensor:
    """Sines and cosines of the absolute place and time, which rotary attention cannot know: (16, F, height, width).

    Three frequencies each for x and y, two for time; the slowest spans half a period over the clip.
    """
    axes = [(width, (1, 1, -1), (0.5, 1.0, 2.0)), (height, (1, -1, 1), (0.5, 1.0, 2.0)), (num_frames, (-1, 1, 1), (0.5, 1.0))]
    planes = []
    for size, shape, frequencies in axes:
        place = ((torch.arange(size, dtype=torch.float32) + 0.5) / size).reshape(shape)
        for frequency in frequencies:
            angle = 2 * math.pi * frequency * place
            planes += [angle.sin().expand(num_frames, height, width), angle.cos().expand(num_frames, height, width)]
    return torch.stack(planes)
