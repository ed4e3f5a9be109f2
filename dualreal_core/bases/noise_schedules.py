"""What a diffusers scheduler says of a model: how it was trained, and so where in denoising a timestep lies."""

from __future__ import annotations

import math

from diffusers.schedulers.scheduling_utils import SchedulerMixin

from ..objective import FlowMatching, Objective, VPrediction


def objective_of(scheduler: SchedulerMixin, num_tokens: int | None = None) -> Objective:
    """Flow matching with the scheduler's shift, or prediction at its noise levels, kept in float64.

    Args:
        num_tokens: of a video, for schedulers that shift larger ones more; None: as many as give the largest shift.

    Raises:
        ValueError: it is neither, or names no shift.
    """
    config = scheduler.config
    if config.get("use_flow_sigmas") or not hasattr(scheduler, "alphas_cumprod"):
        return FlowMatching(shift=_shift(scheduler, num_tokens), timestep_scale=float(config.num_train_timesteps))
    return VPrediction(tuple(scheduler.alphas_cumprod.double().tolist()))


def _shift(scheduler: SchedulerMixin, num_tokens: int | None) -> float:
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        shift = config.get("flow_shift") if config.get("use_flow_sigmas") else getattr(scheduler, "shift", config.get("shift"))
        if shift is None:
            raise ValueError("it has neither flow sigmas with flow_shift nor shift")
        return float(shift)
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    lowest, highest = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    moved = highest if num_tokens is None else lowest + (highest - lowest) * (num_tokens - fewest) / (most - fewest)
    return math.exp(moved) if config.get("time_shift_type", "exponential") == "exponential" else moved
