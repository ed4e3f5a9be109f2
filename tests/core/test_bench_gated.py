"""Gates of the benchmark's pairs: they go by words that captions tell, and what neither side is asked for stays the base's, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dualreal_core.bases import load_base
from dualreal_core.bench import gated, prior
from dualreal_core.bench.candidate import Candidate
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial
from dualreal_core.bench.prompts import requests
from dualreal_core.bench.registry import find_method
from dualreal_core.bench.results import Protocol, sample_candidate
from dualreal_core.bench.runs import Run, with_needs
from dualreal_core.bench.trainers import TRAINERS
from dualreal_core.method.pair import new_pair
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import with_train

TRIAL = Trial("tam", "hook")
RECIPE = with_train(TOY_RECIPE, steps=4, identity_batch=1, motion_batch=1, warmup_steps=0, evaluate_every=0)
PROTOCOL = Protocol(RECIPE, sampling_steps=2)
NAMED = {
    "fused": (1, 1), "known_motion": (1, 0), "more_known_motions": (1, 0), "other_subject": (0, 1),
    "neither": (0, 0), "untriggered": (0, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return load_base("toyworld")


@pytest.fixture(scope="module")
def pair(base):
    """Untrained, but for weights that make both sides act."""
    pair = new_pair(base.transformer, 0, **RECIPE.pair)
    generator = torch.Generator().manual_seed(0)
    for role in pair.sides:
        for name, parameter in pair.sides[role].named_parameters():
            if name.endswith("up.weight"):
                parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
    return pair.requires_grad_(False)


@pytest.fixture(scope="module")
def own(base, pair, tmp_path_factory):
    return gated.with_fitted_gate(base, TRIAL, pair, tmp_path_factory.mktemp("texts"))


def named(base, pair, prompts: list[str]) -> torch.Tensor:
    with base.encoders():
        return pair.gate(base.batch_texts([base.encode_text(prompt) for prompt in prompts]))


def test_every_prompt_of_the_benchmark_is_read_as_it_is_meant(base, own):
    for name, asked in requests(TRIAL).items():
        assert named(base, own, [one.prompt for one in asked]).tolist() == [list(NAMED[name])] * len(asked), name


def test_videos_of_neither_side_are_the_base_s_own_and_fused_ones_those_without_a_gate(base, pair, own):
    asked = requests(TRIAL)
    prompts = [asked[name][0].prompt for name in ("fused", "neither", "untriggered")]
    plain, free, with_gate = (sample_candidate(base, Candidate(one), TRIAL, prompts, PROTOCOL) for one in (None, pair, own))
    assert torch.equal(with_gate[0], free[0]) and not torch.equal(free[0], plain[0])
    for number in (1, 2):
        assert torch.equal(with_gate[number], plain[number]) and not torch.equal(free[number], plain[number])


def test_a_gate_by_the_loss_leaves_both_sides_as_they_are(base, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(prior, "PRIOR_STEPS", 1)
    monkeypatch.setattr(prior, "NUM_OWN", 4)
    before = [parameter.clone() for parameter in pair.parameters()]
    data, latents = load_trial(base, TRIAL, RECIPE, tmp_path), prior.sample_prior(base, 0)
    first, second = (gated.with_gate_by_loss(base, data, latents, pair, RECIPE.train) for _ in range(2))
    assert all(map(torch.equal, before, pair.parameters()))
    assert all(map(torch.equal, first.gate.parameters(), second.gate.parameters()))
    assert first.gate.named.weight.abs().sum() > 0 and type(first.gate).__name__ == "PromptGate"


def test_ours_is_the_run_without_a_gate_and_a_gate(base):
    (ours,), (free,) = (find_method(name).runs(TRIAL, RECIPE) for name in ("ours", "no-gate"))
    assert [need.key for need in ours.needs] == [free.key] and TRAINERS[ours.trainer].is_data_free
    summed = find_method("sum-gated").runs(TRIAL, RECIPE)
    assert [run.key for run in with_needs(summed)][:2] == [run.key for run in find_method("sum").runs(TRIAL, RECIPE)]
    learned = find_method("gate-by-loss").runs(TRIAL, RECIPE)
    assert [need.trainer for need in learned[0].needs] == ["joint", "prior"] and learned[0].needs[0].key == free.key


def test_whether_a_gate_follows_is_no_part_of_a_run():
    """It comes after the training, so that runs and folders of former versions are still what they are."""
    recipe = replace(RECIPE, prompt_gate=False)
    assert Run("joint", recipe, "tam", "box").key == Run("joint", RECIPE, "tam", "box").key
    assert Protocol(recipe).recorded() == Protocol(RECIPE).recorded()
