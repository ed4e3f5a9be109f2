"""Timesteps to train a side at: as the base draws them, in a range of noise, or biased to where the share schedule favours that side."""

from __future__ import annotations

import torch

from ..method.pair import Role
from ..method.stage_blender import share_at
from ..objective import WHOLE, Objective, SigmaRange

NUM_CANDIDATES = 8
"""Timesteps drawn for each one that is kept."""
LEAST_SHARE = 1e-3
"""Keeps stages that the share schedule takes from a side altogether from being the only ones on offer."""


def draw_timesteps(
    objective: Objective,
    count: int,
    generator: torch.Generator,
    role: Role,
    share_schedule: tuple[float, ...] = (),
    bias: float = 0.0,
    within: SigmaRange = WHOLE,
) -> torch.Tensor:
    """Timesteps (count,), each of several that the objective drew, in proportion to the role's share there to the power `bias`.

    A side learns most where it will have most say: a movement in noise, looks late. Without a share schedule or a bias they are
    the objective's own. All lie within the range of noise, outside of which nothing is drawn.
    """

    def draw(count: int) -> torch.Tensor:
        if within == WHOLE:
            return objective.sample_timesteps(count, generator)
        return objective.sample_within(count, generator, within)

    if not share_schedule or not bias:
        return draw(count)
    candidates = draw(NUM_CANDIDATES * count).reshape(count, NUM_CANDIDATES)
    identity = share_at(share_schedule, objective.stage(candidates.flatten())).reshape(count, NUM_CANDIDATES)
    share = (identity if role == "identity" else 1 - identity).clamp(min=LEAST_SHARE)
    weights = (share / share.amax(1, keepdim=True)).pow(bias)  # whose largest is 1, however strong the bias
    chosen = torch.multinomial(weights, 1, generator=generator)  # (count, 1)
    return candidates.gather(1, chosen)[:, 0]
