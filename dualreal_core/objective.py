"""How a base is trained: which timesteps are drawn, how noise is added, and the loss of each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


class Objective(ABC):
    """Noise schedule, target and loss. B samples; `latents`, `noise` and `model_output` are (B, C, f, h, w)."""

    @abstractmethod
    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        """Timesteps (B,) to train at, on the generator's device."""

    @abstractmethod
    def stage(self, timestep: torch.Tensor) -> torch.Tensor:
        """Where in denoising a sampler with this schedule meets such timesteps (B,): 0 (noise) to 1, (B,)."""

    @abstractmethod
    def levels(self, timestep: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors on latents and noise at timesteps (B,): (B, 1, 1, 1, 1) float32 each, on `device`."""

    @abstractmethod
    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What the model is to put out at timesteps (B,): (B, C, f, h, w)."""

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Noisy latents (B, C, f, h, w) at timesteps (B,)."""
        signal, spread = self.levels(timestep, latents.device)
        return signal * latents + spread * noise

    def loss_per_sample(
        self,
        model_output: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        timestep: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean squared errors (B,) in float32; mask (B, 1, f, h, w) weights those of each place.

        The mask is scaled to mean 1 in each sample, so that its size does not change the loss; an empty one counts as none.
        """
        error = (model_output.float() - self.target(latents, noise, timestep).float()).square()
        if mask is not None:
            weights = mask.float()
            total = weights.mean((1, 2, 3, 4), keepdim=True)  # (B, 1, 1, 1, 1)
            is_empty = total <= 0
            error = error * torch.where(is_empty, 1.0, weights / torch.where(is_empty, 1.0, total))
        return error.mean((1, 2, 3, 4))


@dataclass(frozen=True)
class VPrediction(Objective):
    """v = sqrt(a) eps - sqrt(1 - a) x0 with a = `alphas_cumprod[timestep]`; every timestep is equally likely.

    The x0 error weighted by 1 / (1 - a) equals the plain squared error of v, which also exists where a is 0.
    """

    alphas_cumprod: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.alphas_cumprod or not all(0.0 <= alpha <= 1.0 for alpha in self.alphas_cumprod):
            raise ValueError(f"alphas_cumprod must be numbers from 0 to 1, given are {self.alphas_cumprod[:3]}...")

    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(len(self.alphas_cumprod), (batch_size,), generator=generator, device=generator.device)

    def stage(self, timestep: torch.Tensor) -> torch.Tensor:
        return 1 - timestep.float() / (len(self.alphas_cumprod) - 1 or 1)  # samplers take evenly spaced timesteps

    def levels(self, timestep: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        alphas = torch.tensor(self.alphas_cumprod, dtype=torch.float64)[timestep.cpu()].reshape(-1, 1, 1, 1, 1)
        return alphas.sqrt().float().to(device), (1 - alphas).sqrt().float().to(device)

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        signal, spread = self.levels(timestep, latents.device)
        return signal * noise - spread * latents


@dataclass(frozen=True)
class FlowMatching(Objective):
    """Straight paths x = (1 - sigma) x0 + sigma eps with velocity eps - x0; timestep = sigma * `timestep_scale`.

    sigma is the sigmoid of a normal number (`logit_mean`, `logit_std`), moved towards noise by `shift`.
    """

    shift: float
    logit_std: float = 1.0
    logit_mean: float = 0.0
    timestep_scale: float = 1000.0

    def __post_init__(self) -> None:
        for name in ("shift", "logit_std", "timestep_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, given is {getattr(self, name)}.")

    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        normal = torch.randn(batch_size, generator=generator, device=generator.device)
        sigma = (self.logit_mean + self.logit_std * normal).sigmoid()
        return self.timestep_scale * self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def stage(self, timestep: torch.Tensor) -> torch.Tensor:
        sigma = timestep.float() / self.timestep_scale
        return 1 - sigma / (self.shift - (self.shift - 1) * sigma)  # samplers take sigmas that are evenly spaced before the shift

    def levels(self, timestep: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = (timestep.float() / self.timestep_scale).to(device).reshape(-1, 1, 1, 1, 1)
        return 1 - sigma, sigma

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return noise.float() - latents.float()
