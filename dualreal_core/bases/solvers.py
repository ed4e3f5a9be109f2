"""Plain samplers without a scheduler library: Euler for flow models, DDIM for v-prediction."""

from __future__ import annotations

import itertools

import torch

from ..objective import FlowMatching, VPrediction
from .base import Denoiser, Progress


def denoise_plainly(
    objective: FlowMatching | VPrediction,
    model: Denoiser,
    latents: torch.Tensor,
    num_steps: int,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> torch.Tensor:
    """From noise of standard deviation 1 to a clip, both (B, C, f, h, w). Nothing is drawn from the generator."""
    plan = _plan(objective, num_steps)
    for index, (timestep, (keep, move)) in enumerate(plan):
        output = model(latents, torch.tensor(timestep, device=latents.device))
        latents = keep * latents + move * output.float()
        if progress is not None:
            progress(index + 1, len(plan))
    return latents


def plain_timesteps(objective: FlowMatching | VPrediction, num_steps: int) -> list[float]:
    """The timesteps at which `denoise_plainly` calls the model, from noise on."""
    return [timestep for timestep, _ in _plan(objective, num_steps)]


def _plan(objective: FlowMatching | VPrediction, num_steps: int) -> list[tuple[float, tuple[float, float]]]:
    return _flow_plan(objective, num_steps) if isinstance(objective, FlowMatching) else _v_plan(objective, num_steps)


def _flow_plan(objective: FlowMatching, num_steps: int) -> list[tuple[float, tuple[float, float]]]:
    """Timesteps, and factors on the latents and on the output of each: x' = x + (sigma' - sigma) v along the shifted schedule."""
    even = [1 - index / num_steps for index in range(num_steps + 1)]
    sigmas = [objective.shift * sigma / (1 + (objective.shift - 1) * sigma) for sigma in even]
    return [
        (sigma * objective.timestep_scale, (1.0, following - sigma)) for sigma, following in itertools.pairwise(sigmas)
    ]


def _v_plan(objective: VPrediction, num_steps: int) -> list[tuple[int, tuple[float, float]]]:
    """DDIM (eta 0) with trailing timesteps, written in x and v."""
    total = len(objective.alphas_cumprod)
    timesteps = [round(total - index * total / num_steps) - 1 for index in range(num_steps)]
    plan = []
    for index, timestep in enumerate(timesteps):
        signal, noise = _levels(objective, timestep)
        is_last = index + 1 == len(timesteps)
        next_signal, next_noise = (1.0, 0.0) if is_last else _levels(objective, timesteps[index + 1])
        # x0 = s x - n v and eps = n x + s v; x' = s' x0 + n' eps
        plan.append((timestep, (next_signal * signal + next_noise * noise, next_noise * signal - next_signal * noise)))
    return plan


def _levels(objective: VPrediction, timestep: int) -> tuple[float, float]:
    alpha = objective.alphas_cumprod[timestep]
    return alpha**0.5, (1 - alpha) ** 0.5
