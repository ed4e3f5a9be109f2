"""Sampling with a diffusers scheduler, one step at a time: the loop of diffusers' pipelines turned inside out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import CogVideoXDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

Solve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class SchedulerStep:
    """One sampling step.

    Attributes:
        index, num_steps: position in the schedule.
        timestep: scalar tensor for `Base.predict`.
        latents: (B, C, f, h, w) what the DiT is to see; once advanced, the next latents.
    """

    index: int
    num_steps: int
    timestep: torch.Tensor
    latents: torch.Tensor
    _sample: torch.Tensor
    _solve: Solve
    _is_advanced: bool = False

    def advance(self, model_output: torch.Tensor) -> torch.Tensor:
        """Takes the (guided) model output (B, C, f, h, w), returns the next latents (B, C, f, h, w).

        Raises:
            RuntimeError: the step was advanced before.
        """
        if self._is_advanced:
            raise RuntimeError(f"Step {self.index} has been advanced already: call advance once per step.")
        self.latents = self._sample = self._solve(model_output.float(), self.timestep, self._sample)
        self._is_advanced = True
        return self.latents


def denoise(
    scheduler: SchedulerMixin, latents: torch.Tensor, num_steps: int, generator: torch.Generator, frames_first: bool
) -> Iterator[SchedulerStep]:
    """Steps from noise to a clip; latents: (B, C, f, h, w), noise of standard deviation 1.

    The scheduler itself is left as it is: each run steps a copy. `frames_first` lets the copy work on (B, f, C, h, w),
    which decides the order in which it draws noise.

    Raises:
        RuntimeError: the caller asks for the next step before advancing this one.
    """
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.set_timesteps(num_steps, device=latents.device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    solve = _solver(scheduler, generator, frames_first)
    scale_input = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)
    sample = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    for index, timestep in enumerate(scheduler.timesteps):
        step = SchedulerStep(index, len(scheduler.timesteps), timestep, scale_input(sample, timestep), sample, solve)
        yield step
        if not step._is_advanced:
            raise RuntimeError(f"Step {index} was not advanced: call step.advance(model_output) before the next step.")
        sample = step._sample


def _solver(scheduler: SchedulerMixin, generator: torch.Generator, frames_first: bool) -> Solve:
    """(model output, timestep, sample) -> next sample, all (B, C, f, h, w), with the history one run needs."""
    keywords = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    clean, last_timestep = None, None

    def solve_dpm(model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        nonlocal clean, last_timestep
        sample, clean = scheduler.step(model_output, clean, timestep, last_timestep, sample, **keywords, return_dict=False)
        last_timestep = timestep
        return sample

    def solve_plain(model_output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return scheduler.step(model_output, timestep, sample, **keywords, return_dict=False)[0]

    solve = solve_dpm if isinstance(scheduler, CogVideoXDPMScheduler) else solve_plain
    if not frames_first:
        return lambda output, timestep, sample: solve(output, timestep, sample).to(sample.dtype)

    def solve_frames_first(output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        return solve(output.transpose(1, 2), timestep, sample.transpose(1, 2)).transpose(1, 2).to(sample.dtype)

    return solve_frames_first
