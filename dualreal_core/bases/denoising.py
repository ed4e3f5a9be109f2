"""Sampling with a diffusers scheduler: the loop of diffusers' pipelines, around any model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from diffusers import CogVideoXDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .base import Denoiser, Progress


def denoise(
    scheduler: SchedulerMixin,
    model: Denoiser,
    latents: torch.Tensor,
    num_steps: int,
    generator: torch.Generator,
    progress: Progress | None = None,
    *,
    frames_first: bool,
    step_arguments: Callable[[SchedulerMixin, int, torch.Tensor], Mapping[str, object]] | None = None,
) -> torch.Tensor:
    """From noise of standard deviation 1 to a clip, both (B, C, f, h, w).

    Args:
        scheduler: is left as it is; each run steps a copy.
        frames_first: the copy works on (B, f, C, h, w), which decides the order in which it draws noise.
        step_arguments: what the scheduler's steps are made of, where that is not their number alone.
    """
    scheduler = type(scheduler).from_config(scheduler.config)
    arguments = {"num_inference_steps": num_steps} if step_arguments is None else step_arguments(scheduler, num_steps, latents)
    scheduler.set_timesteps(**arguments, device=latents.device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    scale_input = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)
    keywords = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    clean, last_timestep = None, None
    total = len(scheduler.timesteps)
    for index, timestep in enumerate(scheduler.timesteps):
        output = model(scale_input(latents, timestep), timestep).float()
        sample, dtype = latents, latents.dtype
        if frames_first:
            output, sample = output.transpose(1, 2), sample.transpose(1, 2)  # (B, f, C, h, w)
        if isinstance(scheduler, CogVideoXDPMScheduler):
            sample, clean = scheduler.step(output, clean, timestep, last_timestep, sample, **keywords, return_dict=False)
            last_timestep = timestep
        else:
            sample = scheduler.step(output, timestep, sample, **keywords, return_dict=False)[0]
        latents = (sample.transpose(1, 2) if frames_first else sample).to(dtype)
        if progress is not None:
            progress(index + 1, total)
    return latents
