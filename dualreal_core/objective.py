"""How a base is trained: which timesteps are drawn, how noise is added, and the loss of each sample."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

SigmaRange = tuple[float, float]
"""Noise levels from the lower on and below the upper one, 1 included. A noise level, sigma, is the factor on the noise: 0 (clean) to 1.
It is a flow model's own sigma; for v-prediction it is sqrt(1 - alpha_bar)."""
WHOLE: SigmaRange = (0.0, 1.0)


class Objective(ABC):
    """Noise schedule, target and loss. B samples; `latents`, `noise` and `model_output` are (B, C, f, h, w)."""

    @abstractmethod
    def sample_timesteps(self, batch_size: int, generator: torch.Generator) -> torch.Tensor:
        """Timesteps (B,) to train at, on the generator's device."""

    @abstractmethod
    def sample_within(self, batch_size: int, generator: torch.Generator, within: SigmaRange) -> torch.Tensor:
        """Timesteps (B,) as `sample_timesteps` gives them, of those alone whose noise level lies within a range.

        Their density there is the same but for a factor: what lies outside is cut off, not moved to the ends.

        Raises:
            ValueError: the range holds none.
        """

    @abstractmethod
    def stage(self, timestep: torch.Tensor) -> torch.Tensor:
        """Where in denoising a sampler with this schedule meets such timesteps (B,): 0 (noise) to 1, (B,)."""

    @abstractmethod
    def levels(self, timestep: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors on latents and noise at timesteps (B,): (B, 1, 1, 1, 1) float32 each, on `device`."""

    @abstractmethod
    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What the model is to put out at timesteps (B,): (B, C, f, h, w)."""

    def noise_level(self, timestep: torch.Tensor) -> torch.Tensor:
        """The factor on the noise at timesteps (B,), 1 (noise) to 0 (clean): (B,), on the host."""
        return self.levels(timestep.reshape(-1), torch.device("cpu"))[1].flatten()

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

    def sample_within(self, batch_size: int, generator: torch.Generator, within: SigmaRange) -> torch.Tensor:
        lowest, highest = within
        levels = [math.sqrt(1 - alpha) for alpha in self.alphas_cumprod]
        inside = [index for index, level in enumerate(levels) if lowest <= level and (level < highest or highest == 1)]
        if not inside:
            raise ValueError(
                f"sigma_min {lowest:g} and sigma_max {highest:g} leave none of the model's noise levels, which go from "
                f"{min(levels):.3g} to {max(levels):.3g}: move them further apart."
            )
        picks = torch.randint(len(inside), (batch_size,), generator=generator, device=generator.device)
        return torch.tensor(inside, device=generator.device)[picks]

    def stage(self, timestep: torch.Tensor) -> torch.Tensor:
        return 1 - timestep.float() / (len(self.alphas_cumprod) - 1 or 1)  # samplers take evenly spaced timesteps

    def levels(self, timestep: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        alphas = torch.tensor(self.alphas_cumprod, dtype=torch.float64)[timestep.cpu().long()].reshape(-1, 1, 1, 1, 1)
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

    def sample_within(self, batch_size: int, generator: torch.Generator, within: SigmaRange) -> torch.Tensor:
        bounds = [self._normal_of(sigma) for sigma in within]
        side = -1.0 if sum(bounds) > 0 else 1.0  # probabilities are told apart near 0 and not near 1, so of two tails the lower is used
        begin, end = torch.special.ndtr(torch.tensor(sorted(side * bound for bound in bounds), dtype=torch.float64)).tolist()
        uniform = torch.rand(batch_size, generator=generator, device=generator.device, dtype=torch.float64)
        normal = side * torch.special.ndtri(begin + (end - begin) * uniform)
        sigma = (self.logit_mean + self.logit_std * normal).sigmoid()
        timestep = (self.timestep_scale * self.shift * sigma / (1 + (self.shift - 1) * sigma)).float()
        lowest, highest = (torch.tensor(self.timestep_scale * bound, dtype=torch.float32) for bound in within)
        if within[1] < 1:
            highest = torch.nextafter(highest, torch.tensor(0.0))
        return timestep.clamp(lowest.item(), max(lowest, highest).item())  # which rounding alone can leave

    def _normal_of(self, sigma: float) -> float:
        """The normal number that becomes a noise level."""
        if sigma <= 0 or sigma >= 1:
            return -math.inf if sigma <= 0 else math.inf
        return (math.log(sigma) - math.log1p(-sigma) - math.log(self.shift) - self.logit_mean) / self.logit_std

    def stage(self, timestep: torch.Tensor) -> torch.Tensor:
        sigma = timestep.float() / self.timestep_scale
        return 1 - sigma / (self.shift - (self.shift - 1) * sigma)  # samplers take sigmas that are evenly spaced before the shift

    def levels(self, timestep: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = (timestep.float() / self.timestep_scale).to(device).reshape(-1, 1, 1, 1, 1)
        return 1 - sigma, sigma

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return noise.float() - latents.float()
