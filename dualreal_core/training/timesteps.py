"""Timesteps to train a side at: as the base draws them, or gathered where in denoising the course favours that side."""

from __future__ import annotations

import torch

from ..method.pair import Role
from ..method.stage_blender import course_share
from ..objective import Objective

NUM_CANDIDATES = 8
"""Timesteps drawn for each one that is kept."""
LEAST_SHARE = 1e-3
"""Keeps stages that the course takes from a side altogether from being the only ones on offer."""


def draw_timesteps(
    objective: Objective, count: int, generator: torch.Generator, role: Role, course: tuple[float, ...] = (), focus: float = 0.0
) -> torch.Tensor:
    """Timesteps (count,), each of several that the objective drew, in proportion to the role's share there to the power `focus`.

    A side learns most where it will have most say: a movement in noise, looks late. Without a course or a focus they are
    the objective's own.
    """
    if not course or not focus:
        return objective.draw(count, generator)
    candidates = objective.draw(NUM_CANDIDATES * count, generator).reshape(count, NUM_CANDIDATES)
    identity = course_share(course, objective.stage(candidates.flatten())).reshape(count, NUM_CANDIDATES)
    share = (identity if role == "identity" else 1 - identity).clamp(min=LEAST_SHARE)
    weights = (share / share.amax(1, keepdim=True)).pow(focus)  # whose largest is 1, however sharp the focus
    chosen = torch.multinomial(weights, 1, generator=generator)  # (count, 1)
    return candidates.gather(1, chosen)[:, 0]
