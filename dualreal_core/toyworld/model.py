"""The embedded base as a model: configuration of its DiT and the position planes it reads."""

from __future__ import annotations

import math

import torch

from .codec import LATENT_CHANNELS
from .text import TEXT_DIM

NUM_PLANES = 12

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


def position_planes(height: int, width: int) -> torch.Tensor:
    """Sines and cosines of the absolute place, which rotary attention cannot know: (12, height, width).

    Three frequencies each for x and y; the slowest spans half a period over the frame.
    """
    planes = []
    for size, shape in ((width, (1, -1)), (height, (-1, 1))):
        place = ((torch.arange(size, dtype=torch.float32) + 0.5) / size).reshape(shape)
        for frequency in (0.5, 1.0, 2.0):
            angle = 2 * math.pi * frequency * place
            planes += [angle.sin().expand(height, width), angle.cos().expand(height, width)]
    return torch.stack(planes)
