"""Plain samplers without a scheduler library: Euler for flow models, DDIM for v-prediction."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..objective import FlowMatching, VPrediction


@dataclass
class PlainStep:
    """See `bases.base.DenoisingStep`."""

    index: int
    num_steps: int
    timestep: torch.Tensor
    latents: torch.Tensor
    coefficients: tuple[float, float]
    """Factors on the latents and on the model output that give the next latents."""

    def advance(self, model_output: torch.Tensor) -> torch.Tensor:
        """Takes the (guided) model output (B, C, f, h, w), returns the next latents."""
        keep, move = self.coefficients
        self.latents = keep * self.latents + move * model_output.float()
        return self.latents


def denoise_plainly(objective: FlowMatching | VPrediction, latents: torch.Tensor, num_steps: int) -> Iterator[PlainStep]:
    """Steps from noise (B, C, f, h, w) of standard deviation 1 to a clip; the caller advances each step."""
    plan = _flow_plan(objective, num_steps) if isinstance(objective, FlowMatching) else _v_plan(objective, num_steps)
    for index, (timestep, coefficients) in enumerate(plan):
        step = PlainStep(index, len(plan), torch.tensor(timestep, device=latents.device), latents, coefficients)
        yield step
        latents = step.latents


def _flow_plan(objective: FlowMatching, num_steps: int) -> list[tuple[float, tuple[float, float]]]:
    """x' = x + (sigma' - sigma) v along the shifted schedule."""
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
