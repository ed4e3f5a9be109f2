"""What a diffusers scheduler says of a model: how it was trained, and so where in denoising a timestep lies."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from ..objective import FlowMatching, Objective, VPrediction


def objective_of(scheduler: SchedulerMixin) -> Objective:
    """Flow matching with the scheduler's shift, or prediction at its noise levels, kept in float64.

    Of schedulers that shift large videos more it is the largest shift, so that a timestep means the same in videos of all sizes.

    Raises:
        ValueError: it is neither, or names no shift.
    """
    config = scheduler.config
    if not config.get("use_flow_sigmas") and hasattr(scheduler, "alphas_cumprod"):
        return VPrediction(tuple(scheduler.alphas_cumprod.double().tolist()))
    if config.get("use_dynamic_shifting"):
        moved = float(config.get("max_shift", 1.15))
        shift = math.exp(moved) if config.get("time_shift_type", "exponential") == "exponential" else moved
    else:
        shift = config.get("flow_shift") if config.get("use_flow_sigmas") else getattr(scheduler, "shift", config.get("shift"))
    if shift is None:
        raise ValueError("it has neither flow sigmas with flow_shift nor shift")
    return FlowMatching(shift=float(shift), timestep_scale=float(config.num_train_timesteps))


def flow_objective(scheduler: SchedulerMixin) -> Objective:
    """Raises ValueError where the scheduler is of no flow."""
    objective = objective_of(scheduler)
    if not isinstance(objective, FlowMatching):
        raise ValueError(f"its {type(scheduler).__name__} has no flow sigmas")
    return objective


def even_sigmas(scheduler: SchedulerMixin, num_steps: int, latents: torch.Tensor) -> Mapping[str, object]:
    """Steps that are even before the shift, as pipelines give them; of schedulers that shift large videos more each latent is a token.

    latents: (B, C, f, h, w)
    """
    config = scheduler.config
    sigmas = {"sigmas": [1 - step / num_steps for step in range(num_steps)]}
    if not config.get("use_dynamic_shifting"):
        return sigmas
    fewest, most, lowest, highest = (config[name] for name in ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift"))
    slope = (highest - lowest) / (most - fewest)
    return {**sigmas, "mu": lowest + slope * (latents[0, 0].numel() - fewest)}
