"""Sizes of the embedded base."""

from __future__ import annotations

LATENT_CHANNELS = 16
TEXT_DIM = 128
NUM_PLANES = 16
"""Of position, which the DiT reads beside the latents."""

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
