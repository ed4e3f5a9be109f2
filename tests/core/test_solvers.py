"""Plain sampling: with a model that knows the answer, every step stays on the noise's path and the last one is the answer."""

from __future__ import annotations

import pytest
import torch

from dualreal_core.bases.solvers import denoise_plainly
from dualreal_core.objective import FlowMatching, VPrediction

CLEAN = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
ALPHAS = tuple(torch.linspace(0.999, 0.0, 1000).tolist())


@pytest.mark.parametrize("num_steps", [1, 4, 20])
@pytest.mark.parametrize("objective", [FlowMatching(shift=3.0), FlowMatching(shift=8.0, timestep_scale=1.0), VPrediction(ALPHAS)], ids=str)
def test_an_exact_model_gives_the_clean_latents(objective, num_steps):
    latents, seen = NOISE, []
    for step in denoise_plainly(objective, latents, num_steps):
        seen.append(float(step.timestep))
        timestep = step.timestep.reshape(1)
        torch.testing.assert_close(step.latents, objective.add_noise(CLEAN, NOISE, timestep), rtol=1e-4, atol=1e-4)
        if isinstance(objective, FlowMatching):
            output = NOISE - CLEAN
        else:
            alpha = ALPHAS[int(timestep)]
            output = alpha**0.5 * NOISE - (1 - alpha) ** 0.5 * CLEAN
        latents = step.advance(output)
    torch.testing.assert_close(latents, CLEAN, rtol=1e-4, atol=1e-4)
    assert len(seen) == num_steps and seen == sorted(seen, reverse=True)


def test_sampling_begins_at_pure_noise():
    first = next(iter(denoise_plainly(FlowMatching(shift=3.0), NOISE, 5)))
    assert float(first.timestep) == 1000 and (first.index, first.num_steps) == (0, 5)
    assert int(next(iter(denoise_plainly(VPrediction(ALPHAS), NOISE, 5))).timestep) == 999
