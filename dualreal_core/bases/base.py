"""A base: a DiT with all that turns photos, clips and words into its inputs, and its outputs into frames.

Everything outside `bases/` speaks one layout: frames (F, 3, H, W) in [-1, 1], latents (C, f, h, w), batches of them
with a leading B, text (T, X) per prompt, reference embeddings (E,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import nn

from ..errors import InputError
from ..families import FamilyDescription
from ..objective import Objective

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What a sampler calls: (latents (B, C, f, h, w), timestep ()) -> output (B, C, f, h, w)."""
Offload = Literal["none", "model", "blocks"]
"""Where a DiT's weights wait that are not at work: nowhere, and they are read again from their files; in main memory; or in main
memory block by block, each on the device only while it computes, which cannot be trained through."""
Progress = Callable[[int, int], None]
"""Called as (done, total) after every step."""


class Base(Protocol):
    """What training and sampling need of a base model.

    Attributes:
        name: 'toyworld' or the model folder.
        architecture: the DiT's modules, for what needs no weights; these may be absent (on the meta device).
        transformer: the same modules with their weights in memory; frozen and never changed.
        device: where the DiT computes.
        family: description of the DiT's class.
        objective: how it is trained: noise schedule, target, loss.
        latent_channels: C.
        frame_multiple: valid clips have `frame_multiple * k + 1` frames (1: any number).
        size_multiple: width and height are multiples of this.
        default_size: (height, width) used when the user names none.
        default_num_frames, default_fps, default_guidance_scale, default_num_steps: likewise.
        condition_dim: E, or None where no image encoder is at hand (adapters then take no condition).
        fingerprint: hash of the encoders' weights: the key under which cached latents are valid.
        compute_dtype: of the DiT's activations.
    """

    name: str
    architecture: nn.Module
    transformer: nn.Module
    device: str
    family: FamilyDescription
    objective: Objective
    latent_channels: int
    frame_multiple: int
    size_multiple: int
    default_size: tuple[int, int]
    default_num_frames: int
    default_fps: float
    default_guidance_scale: float
    default_num_steps: int
    condition_dim: int | None
    fingerprint: str
    compute_dtype: torch.dtype

    def rest(self) -> None:
        """Takes the DiT's weights off the device, until they are asked for again."""

    def encoders(self) -> AbstractContextManager[None]:
        """Loads text encoder, VAE and image encoder on entry and drops them from memory on exit; the DiT's weights may leave.

        `encode_text`, `encode_frames`, `decode_latents` and `embed_image` work only inside.
        """

    def encode_text(self, prompt: str) -> torch.Tensor:
        """Text embedding (T, X) of one prompt."""

    def batch_texts(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Text embeddings (T_i, X) of several prompts -> (B, T, X), zero-padded to one length, on the DiT's device."""

    def dit_text(self, text: torch.Tensor) -> torch.Tensor:
        """Of a prompt's text (T, X), what the DiT gets as its argument of that name, (T', X'): not what it gets by other ways."""

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """frames (F, 3, H, W) in [-1, 1] -> latents (C, f, h, w), normalised as the DiT expects. Deterministic."""

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """latents (C, f, h, w) -> frames (F, 3, H, W), clamped to [-1, 1]."""

    def embed_image(self, frame: torch.Tensor) -> torch.Tensor:
        """frame (3, H, W) in [-1, 1] -> reference embedding (E,)."""

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape (C, f, h, w) of the latents of such a clip."""

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Runs the DiT.

        latents: (B, C, f, h, w); timestep: (B,) as the objective gives it; text: (B, T, X) -> (B, C, f, h, w).
        """

    def denoise(
        self, model: Denoiser, latents: torch.Tensor, num_steps: int, generator: torch.Generator, progress: Progress | None = None
    ) -> torch.Tensor:
        """Samples with the base's own solver: from noise of standard deviation 1 to a clip, both (B, C, f, h, w)."""


def check_size(base: Base, num_frames: int, height: int, width: int) -> None:
    """Raises InputError where the base has no clips of that length or size in px."""
    frames, sides = base.frame_multiple, base.size_multiple
    if num_frames < 1 or (num_frames - 1) % frames:
        nearest = max(0, num_frames - 1) // frames * frames + 1
        raise InputError(f"{num_frames} frames do not fit {base.name}: choose {frames} * k + 1, such as {nearest}.")
    if any(side < 1 or side % sides for side in (height, width)):
        raise InputError(f"{width}x{height} px do not fit {base.name}: choose sides that are multiples of {sides}.")


def pad_texts(texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Texts (T_i, X) zero-padded to one length: (B, T, X)."""
    return torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
