"""ComfyUI's samplings as parts of runs: which of them a Blend Map shows, and where their sigmas lie in denoising."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dualreal_core.method.blend import BlendRecord
from dualreal_core.objective import FlowMatching, VPrediction

ROOT = Path(__file__).parents[2]
NOISE, HALF, FINISHED, OTHER = (torch.full((1, 2, 1, 2, 2), float(value)) for value in (0, 1, 2, 3))


@pytest.fixture
def pack(monkeypatch):
    """Modules of nodes/ that need no ComfyUI, by name."""
    for name, path in (("pack", ROOT), ("pack.nodes", ROOT / "nodes")):
        package = ModuleType(name)
        package.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, name, package)
    return lambda name: importlib.import_module(f"pack.nodes.{name}")


@pytest.fixture
def run(pack):
    """Names of the parts of the run behind latents, given parts as (name, given, made, start, end) in the order in which they ended.

    Those whose name begins with "later" are of a prompt of their own.
    """
    module = pack("sampled_part")

    def shown(latents: torch.Tensor, *parts: tuple) -> list[str]:
        made = []
        for moment, (name, *tensors, start, end) in enumerate(parts):
            marks, prompt = map(module.latent_mark, tensors), "second" if name.startswith("later") else "first"
            made.append(module.SampledPart(*marks, start, end, 1.0, BlendRecord(), prompt, moment))
        return [parts[int(part.moment)][0] for part in module.run_behind(latents, made[::-1])]

    return shown


FIRST, SECOND = ("first", NOISE, HALF, 1.0, 0.6), ("second", HALF, FINISHED, 0.6, 0.0)


def test_a_run_in_parts_is_shown_whole(run):
    assert run(FINISHED, FIRST, SECOND) == ["first", "second"]
    quarter, rest = ("quarter", HALF, OTHER, 0.6, 0.3), ("rest", OTHER, FINISHED, 0.3, 0.0)
    assert run(FINISHED, FIRST, quarter, rest) == ["first", "quarter", "rest"]
    assert run(HALF, FIRST, SECOND) == ["first"]


def test_a_run_from_noise_starts_anew(run):
    assert run(FINISHED, ("before", NOISE, OTHER, 1.0, 0.0), ("whole", NOISE, FINISHED, 1.0, 0.0)) == ["whole"]
    assert run(FINISHED, FIRST, ("whole", NOISE, FINISHED, 1.0, 0.0)) == ["whole"]


def test_each_latent_is_shown_its_own_run(run):
    """One MODEL in several branches of a graph, in whatever order ComfyUI runs them."""
    first, second = ("other first", NOISE, OTHER + 1, 1.0, 0.6), ("other second", OTHER + 1, OTHER, 0.6, 0.0)
    for parts in ((FIRST, SECOND, first, second), (FIRST, first, SECOND, second), (first, FIRST, second, SECOND)):
        assert run(FINISHED, *parts) == ["first", "second"]
        assert run(OTHER, *parts) == ["other first", "other second"]


def test_a_part_from_the_cache_belongs_to_the_run(run):
    """Queued again with another second half: ComfyUI does not run the first one."""
    assert run(OTHER, FIRST, SECOND, ("later second", HALF, OTHER, 0.6, 0.0)) == ["first", "later second"]
    assert run(OTHER, FIRST, ("later second", HALF, OTHER, 0.6, 0.0)) == ["first", "later second"]


def test_a_run_that_was_left_unfinished_is_not_gone_on_with_by_chance(run):
    """By a sampling that starts at that noise or below with other latents: of another prompt, or from nothing."""
    assert run(FINISHED, FIRST, ("later", OTHER, FINISHED, 0.6, 0.0)) == ["later"]
    assert run(FINISHED, FIRST, ("from nothing", NOISE, FINISHED, 0.6, 0.0)) == ["from nothing"]


def test_latents_changed_between_the_parts_do_not_end_the_run(run):
    """Enlarged between the experts, say; the next sampling from noise begins another."""
    changed = ("changed", OTHER, FINISHED, 0.6, 0.0)
    assert run(FINISHED, FIRST, changed) == ["first", "changed"]
    assert run(FINISHED + 9, FIRST, changed) == ["first", "changed"], "a latent that no part made"
    assert run(FINISHED, FIRST, ("higher", OTHER, FINISHED, 0.7, 0.0)) == ["higher"]


@pytest.mark.parametrize("given", [FINISHED, OTHER], ids=["as it was", "enlarged"])
def test_a_second_pass_over_a_finished_latent_is_a_run_of_its_own(run, given):
    second_pass = ("pass", given, FINISHED + 1, 0.6, 0.0)
    assert run(FINISHED + 1, ("whole", NOISE, FINISHED, 1.0, 0.0), second_pass) == ["pass"]
    assert run(FINISHED + 1, FIRST, SECOND, second_pass) == ["pass"]


def test_a_latent_that_was_turned_to_noise_begins_a_run(run):
    """Sigmas the other way round, as in inversion, and denoising from there."""
    assert run(FINISHED, ("inverted", FINISHED, HALF, 0.0, 1.0), ("whole", HALF, FINISHED, 1.0, 0.0)) == ["whole"]


def test_latents_are_known_in_another_precision(run):
    noisy = torch.randn(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert run(noisy.half(), ("first", NOISE, noisy, 1.0, 0.6), FIRST) == ["first"]
    assert run(FINISHED, ("before", NOISE, noisy.half(), 1.0, 0.6), ("second", noisy, FINISHED, 0.6, 0.0)) == ["before", "second"]


def flow(shift: float):
    return lambda percent: shift * (1 - percent) / (1 + (shift - 1) * (1 - percent)), FlowMatching(shift, timestep_scale=1.0)


def discrete(sigmas: torch.Tensor):
    """As ComfyUI's discrete models: infinite noise at 0, none at 1, geometric means between timesteps."""
    logs = sigmas.double().log()

    def percent_to_sigma(percent: float) -> float:
        if not 0 < percent < 1:
            return 999999999.9 * (percent <= 0)
        place = 999 * (1 - percent)
        return math.exp(torch.lerp(logs[math.floor(place)], logs[math.ceil(place)], place % 1))

    return percent_to_sigma, VPrediction(tuple((1 / (1 + sigmas.double() ** 2)).tolist()))


ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
ZERO_SNR = ((ALPHAS.sqrt() - ALPHAS[-1].sqrt()) * ALPHAS[0].sqrt() / (ALPHAS[0].sqrt() - ALPHAS[-1].sqrt())).square().clamp(min=4.9e-8)


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, math.exp(2.37), 12.0, 100.0])
def test_a_flows_sigma_lies_where_training_places_it(pack, shift):
    percent_to_sigma, objective = flow(shift)
    schedule = pack("denoising_stage").NoiseSchedule.of(percent_to_sigma, 0.0, 1.0)
    sigmas = torch.linspace(0, 1, 1001)
    placed = torch.tensor([schedule.stage(sigma) for sigma in sigmas.tolist()])
    torch.testing.assert_close(placed, objective.stage(sigmas), rtol=0, atol=1e-4)


@pytest.mark.parametrize("alphas", [ALPHAS, ZERO_SNR], ids=["plain", "zero-SNR"])
def test_a_discrete_models_sigma_lies_where_training_places_it(pack, alphas):
    sigmas = ((1 - alphas) / alphas).sqrt()
    percent_to_sigma, objective = discrete(sigmas)
    schedule = pack("denoising_stage").NoiseSchedule.of(percent_to_sigma, 0.0, 1.0)
    placed = torch.tensor([schedule.stage(sigma) for sigma in sigmas.tolist()])
    torch.testing.assert_close(placed, objective.stage(torch.arange(1000)), rtol=0, atol=1e-5)
    assert [schedule.stage(sigma) for sigma in (1e9, 0.0)] == [0.0, 1.0] and schedule.stage(None) is None
