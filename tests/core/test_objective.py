"""Objectives against their equations and against the reference's training steps."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXDPMScheduler
from golden import Golden

from dualreal_core.objective import FlowMatching, Objective, VPrediction

SHAPE = (3, 4, 2, 6, 8)


def v_prediction(scheduler: CogVideoXDPMScheduler) -> VPrediction:
    return VPrediction(tuple(scheduler.alphas_cumprod.double().tolist()))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def objectives() -> list[Objective]:
    return [VPrediction((0.99, 0.6, 0.2, 0.0)), FlowMatching(shift=3.0), FlowMatching(shift=1.0, logit_std=1.2, logit_mean=-0.4)]


@pytest.fixture(scope="module")
def golden_objective(golden: Golden) -> VPrediction:
    return v_prediction(CogVideoXDPMScheduler.from_config(golden.table("scheduler/scheduler_config.json")))


def test_noise_levels_are_those_of_the_reference(golden: Golden, golden_objective: VPrediction) -> None:
    expected = golden.table("train_steps.json")["alphas_cumprod"]
    assert len(expected) > 10
    for timestep, alpha in expected.items():
        assert golden_objective.alphas_cumprod[int(timestep)] == pytest.approx(alpha, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("role", ["identity", "motion"])
def test_reference_training_step(golden: Golden, golden_objective: VPrediction, role: str) -> None:
    """1e-5 for the loss: the reference sums in float64, we in float32; 1e-6 for the noisy latents."""

    def step(name: str) -> torch.Tensor:
        return golden.tensor("train_steps", f"{role}.{name}")

    latents, noise, output = (step(name).transpose(1, 2) for name in ("latents", "noise", "model_output"))
    timestep = step("timesteps")
    loss = golden_objective.loss_per_sample(output, latents, noise, timestep)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), step("loss_per_sample"), rtol=1e-5, atol=0)
    noisy = step("noisy").transpose(1, 2)
    torch.testing.assert_close(golden_objective.add_noise(latents, noise, timestep), noisy, rtol=0, atol=1e-6)


def test_velocity_error_is_the_weighted_error_of_the_clean_latents(generator: torch.Generator) -> None:
    objective = VPrediction((0.9, 0.5, 0.1))
    latents, noise, output = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    timestep = torch.tensor([0, 1, 2])
    alpha = torch.tensor(objective.alphas_cumprod).reshape(-1, 1, 1, 1, 1)
    clean = alpha.sqrt() * objective.add_noise(latents, noise, timestep) - (1 - alpha).sqrt() * output
    expected = ((clean - latents).square() / (1 - alpha)).mean((1, 2, 3, 4))
    torch.testing.assert_close(objective.loss_per_sample(output, latents, noise, timestep), expected)


def test_zero_signal_has_a_finite_loss(generator: torch.Generator) -> None:
    objective = VPrediction((0.5, 0.0))
    latents, noise = torch.randn(1, 4, 1, 2, 2, generator=generator), torch.randn(1, 4, 1, 2, 2, generator=generator)
    timestep = torch.tensor([1])
    assert torch.equal(objective.add_noise(latents, noise, timestep), noise)
    assert objective.loss_per_sample(-latents, latents, noise, timestep).item() == 0


def test_flow_equations(generator: torch.Generator) -> None:
    objective = FlowMatching(shift=3.0)
    latents, noise = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
    timestep = torch.tensor([0.0, 250.0, 1000.0])
    noisy = objective.add_noise(latents, noise, timestep)
    torch.testing.assert_close(noisy[0], latents[0])
    torch.testing.assert_close(noisy[1], 0.75 * latents[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy[2], noise[2])
    assert objective.loss_per_sample(noise - latents, latents, noise, timestep).abs().max() == 0


@pytest.mark.parametrize("objective", objectives(), ids=repr)
def test_interface(objective: Objective, generator: torch.Generator) -> None:
    timestep = objective.sample_timesteps(3, generator)
    assert timestep.shape == (3,)
    once, again = (objective.sample_timesteps(3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(once, again)
    latents, noise = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
    output = torch.randn(SHAPE, generator=generator).bfloat16()
    assert objective.add_noise(latents.bfloat16(), noise.bfloat16(), timestep).dtype == torch.float32
    loss = objective.loss_per_sample(output, latents.bfloat16(), noise.bfloat16(), timestep)
    assert loss.shape == (3,) and loss.dtype == torch.float32


def test_draws_cover_their_range(generator: torch.Generator) -> None:
    timesteps = VPrediction((0.9,) * 1000).sample_timesteps(20000, generator)
    assert timesteps.dtype == torch.int64
    assert timesteps.min() == 0 and timesteps.max() == 999
    assert timesteps.double().mean().item() == pytest.approx(499.5, abs=8)
    sigmas = FlowMatching(shift=3.0).sample_timesteps(20000, generator) / 1000
    assert sigmas.min() > 0 and sigmas.max() < 1
    assert sigmas.median().item() == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.01)


@pytest.mark.parametrize("objective", objectives(), ids=repr)
def test_mask_weights_the_error(objective: Objective, generator: torch.Generator) -> None:
    """One sample uniform, one half covered, one empty: uniform and empty masks change nothing, the half selects."""
    timestep = objective.sample_timesteps(3, generator)
    latents, noise, output = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    mask = torch.zeros(3, 1, *SHAPE[2:])
    mask[0] = 0.3
    mask[1, ..., :4] = 2.0
    plain = objective.loss_per_sample(output, latents, noise, timestep)
    weighted = objective.loss_per_sample(output, latents, noise, timestep, mask)
    torch.testing.assert_close(weighted[[0, 2]], plain[[0, 2]])
    left = objective.loss_per_sample(output[..., :4], latents[..., :4], noise[..., :4], timestep)
    torch.testing.assert_close(weighted[1], left[1])


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="alphas_cumprod"):
        VPrediction(())
    with pytest.raises(ValueError, match="alphas_cumprod"):
        VPrediction((0.5, 1.5))
    with pytest.raises(ValueError, match="shift"):
        FlowMatching(shift=0.0)
