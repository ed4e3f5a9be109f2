"""From a prompt to latents: guided denoising, with or without an attached pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .bases.base import Base, Progress
from .method.attach import Attachment

SAMPLING_VERSION = 2
"""Another number wherever the same pair and settings begin to give another video, beyond rounding. 1: the stage followed the number
of steps. 2: it follows from the timestep alone."""


@dataclass(frozen=True)
class SamplingSettings:
    """How one video is sampled."""

    num_frames: int
    height: int
    width: int
    num_steps: int
    guidance_scale: float
    seed: int = 0
    adapts_negative: bool = False
    """Whether the pair also acts on the negative rows, as in the paper's sampler. Where it does not, guidance moves
    away from the plain base, and so strengthens what the pair has learned."""

    def __post_init__(self) -> None:
        if min(self.num_frames, self.height, self.width, self.num_steps) < 1:
            raise ValueError("num_frames, height, width and num_steps must be at least 1.")


def default_sampling(base: Base, seed: int = 0) -> SamplingSettings:
    """The base's own size, length, steps and guidance."""
    height, width = base.default_size
    return SamplingSettings(base.default_num_frames, height, width, base.default_num_steps, base.default_guidance_scale, seed)


@torch.no_grad()
def sample(
    base: Base,
    texts: list[torch.Tensor],
    negative_text: torch.Tensor,
    settings: SamplingSettings,
    attachment: Attachment | None = None,
    condition: torch.Tensor | None = None,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Samples one video per text, all in one batch; row i starts from noise of seed `settings.seed + i`.

    Classifier-free guidance batches negative and positive rows together, negative first.

    Args:
        texts: embeddings (T, X), one per video.
        negative_text: (T', X).
        condition: reference embedding (E,) for conditioned adapters.

    Returns:
        latents (B, C, f, h, w).
    """
    device = base.device
    shape = base.latent_shape(settings.num_frames, settings.height, settings.width)
    generators = [torch.Generator().manual_seed(settings.seed + row) for row in range(len(texts))]
    latents = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)
    is_guided = settings.guidance_scale != 1.0
    text = base.batch_texts([negative_text] * len(texts) * is_guided + texts)
    if attachment is not None:
        attachment.start_over()
        attachment.condition = None if condition is None else condition[None].to(next(attachment.pair.parameters()))
        if is_guided and not settings.adapts_negative:
            attachment.row_strengths = [0.0] * len(texts) + [1.0] * len(texts)

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([latents, latents]) if is_guided else latents
        if attachment is not None:
            attachment.move_to(float(base.objective.stage(timestep)), float(base.objective.noise_level(timestep)))
        output = base.predict(rows, timestep.to(device).expand(len(rows)), text).float()
        if attachment is not None:
            attachment.finish_call()
        if is_guided:
            unconditional, conditional = output.chunk(2)
            output = unconditional + settings.guidance_scale * (conditional - unconditional)
        return output

    try:
        return base.denoise(predict, latents, settings.num_steps, generators[0], progress)
    finally:
        if attachment is not None:
            attachment.condition = attachment.row_strengths = attachment.stage = None
