"""Codec of the toy world: a small per-frame autoencoder from 32 x 32 cells to 8 x 8 latents of 16 channels."""

from __future__ import annotations

import torch
from torch import nn

from .config import LATENT_CHANNELS

CELLS_PER_LATENT = 4


class _ResidualBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(dim, dim, 3, padding=1)
        self.second = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + self.second(nn.functional.silu(self.first(nn.functional.silu(hidden))))


class ToyCodec(nn.Module):
    """Frames to normalised latents and back; no temporal compression.

    `latents_mean` and `latents_std` (16,) make every latent channel zero-mean and unit-variance on the world's frames.
    """

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        pixels = 3 * CELLS_PER_LATENT**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(CELLS_PER_LATENT),
            nn.Conv2d(pixels, dim, 1),
            _ResidualBlock(dim),
            nn.Conv2d(dim, LATENT_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, dim, 1),
            _ResidualBlock(dim),
            nn.Conv2d(dim, pixels, 1),
            nn.PixelShuffle(CELLS_PER_LATENT),
        )
        self.register_buffer("latents_mean", torch.zeros(LATENT_CHANNELS))
        self.register_buffer("latents_std", torch.ones(LATENT_CHANNELS))

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """frames: (N, 3, H, W) in [-1, 1], H and W multiples of 4 -> (N, 16, H/4, W/4)."""
        mean, std = self.latents_mean[:, None, None], self.latents_std[:, None, None]
        return (self.encoder(frames) - mean) / std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: (N, 16, h, w) -> (N, 3, 4h, 4w), about [-1, 1]."""
        mean, std = self.latents_mean[:, None, None], self.latents_std[:, None, None]
        return self.decoder(latents * std + mean)
