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
    seen, done = [], []

    def exact(latents, timestep):
        seen.append(float(timestep))
        timestep = timestep.reshape(1)
        torch.testing.assert_close(latents, objective.add_noise(CLEAN, NOISE, timestep), rtol=1e-4, atol=1e-4)
        if isinstance(objective, FlowMatching):
            return NOISE - CLEAN
        alpha = ALPHAS[int(timestep)]
        return alpha**0.5 * NOISE - (1 - alpha) ** 0.5 * CLEAN

    latents = denoise_plainly(objective, exact, NOISE, num_steps, progress=lambda *at: done.append(at))
    torch.testing.assert_close(latents, CLEAN, rtol=1e-4, atol=1e-4)
    assert len(seen) == num_steps and seen == sorted(seen, reverse=True)
    assert done == [(step + 1, num_steps) for step in range(num_steps)]


@pytest.mark.parametrize(("objective", "noisiest"), [(FlowMatching(shift=3.0), 1000), (VPrediction(ALPHAS), 999)], ids=["flow", "v"])
def test_sampling_begins_at_pure_noise(objective, noisiest):
    timesteps = []
    denoise_plainly(objective, lambda latents, timestep: timesteps.append(float(timestep)) or latents, NOISE, 5)
    assert timesteps[0] == noisiest and len(timesteps) == 5
