"""What sets the model folders apart, as data: one row per kind of diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..objective import Objective

Config = Mapping[str, object]


class TextEncoders(Protocol):
    """What makes prompts' embeddings, each part loaded when first asked for, by the name of its subfolder."""

    device: str

    def tokenizer(self, name: str = "tokenizer") -> PreTrainedTokenizerBase:
        """A tokenizer."""

    def text_encoder(self, name: str = "text_encoder") -> nn.Module:
        """A text encoder, on the device."""


@dataclass(frozen=True)
class FolderLayout:
    """One kind of model folder.

    Attributes:
        transformer, vae: classes of the components.
        text_encoders: classes of what makes a prompt's embedding, by name of the subfolder.
        vae_dtype: dtype the VAE needs, or None for that of the transformer.
        encode_text: (text encoders, prompt, T) -> embedding (T, X), as `predict` takes it.
        frames_first: the scheduler works on (B, f, C, h, w).
        scales: (temporal, spatial) pixels per latent, from the VAE's config.
        latent_frame_group: latent frames after the first come in groups of so many (CogVideoX's VAE decodes pairs: an even
            number of latent frames would give three frames too many).
        patches: (temporal, vertical, horizontal) latents per token, from the transformer's config.
        latent_statistics: mean and standard deviation of raw latents, from the VAE's config and folder; both broadcast to (C, f, h, w).
        objective: from the scheduler; raises ValueError where the scheduler serves another prediction.
        predict: (transformer, latents (B, C, f, h, w), timestep (B,), text (B, T, X)) -> (B, C, f, h, w).
        text_length: T where the transformer's config names none.
        size: default (height, width), or None: the transformer's sample size.
        num_frames: default where the transformer's config names none.
        fps, guidance_scale, num_steps: defaults.
        tokenizers: names of the subfolders.
        channels: the transformer's config names C so.
        step_arguments: (scheduler, number of steps, latents) -> what the scheduler's steps are made of, where that is not their number.
    """

    transformer: type[nn.Module]
    vae: type[nn.Module]
    text_encoders: Mapping[str, type[nn.Module]]
    encode_text: Callable[[TextEncoders, str, int], torch.Tensor]
    scales: Callable[[Config], tuple[int, int]]
    patches: Callable[[Config], tuple[int, int, int]]
    latent_statistics: Callable[[Config, Path], tuple[torch.Tensor, torch.Tensor]]
    objective: Callable[[SchedulerMixin], Objective]
    predict: Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    text_length: int
    size: tuple[int, int] | None
    num_frames: int
    fps: float
    guidance_scale: float
    num_steps: int
    vae_dtype: torch.dtype | None = None
    frames_first: bool = False
    latent_frame_group: int = 1
    tokenizers: tuple[str, ...] = ("tokenizer",)
    channels: str = "in_channels"
    step_arguments: Callable[[SchedulerMixin, int, torch.Tensor], Mapping[str, object]] | None = None
