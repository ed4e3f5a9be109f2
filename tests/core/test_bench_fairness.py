"""No method of the benchmark is handicapped: all see the same figure, and train as many steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial
from dualreal_core.bench.registry import METHODS, find_method
from dualreal_core.bench.results import Protocol, sample_candidate
from dualreal_core.bench.runs import with_needs
from dualreal_core.toyworld.figures import FIGURES
from dualreal_core.toyworld.scores import sprite_bank, sprite_likeness
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import with_train

TRIAL = Trial("tam", "box")
RECIPE = with_train(TOY_RECIPE, steps=4, identity_batch=1, motion_batch=1, warmup_steps=0, evaluate_every=0)
PROTOCOL = Protocol(RECIPE, sampling_steps=1)


@pytest.fixture(scope="module")
def base():
    return load_base("toyworld")


def test_every_method_sees_the_figure_as_large_as_it_is_asked_for(base, tmp_path):
    """A photo scaled down to a frame would teach a figure that its own score does not know."""
    target = sprite_bank().sprites.index(FIGURES[TRIAL.identity])
    recipes = [run.recipe for method in METHODS.values() for run in with_needs(method.runs(TRIAL, RECIPE))]
    cuts = {(recipe.num_crops, recipe.crop_margin): recipe for recipe in recipes}
    for number, recipe in enumerate(cuts.values()):
        items = load_trial(base, Trial("tam", "box"), recipe, tmp_path / str(number))["identity"].items
        with base.encoders(), torch.no_grad():
            photos = torch.cat([base.decode_latents(item.latents) for item in items])
        assert sprite_likeness(photos)[:, target].min() > 0.95


def test_a_conditioned_pair_is_shown_the_figure_as_large_as_in_a_clip(base, monkeypatch):
    shown, embed = [], type(base).embed_image
    monkeypatch.setattr(type(base), "embed_image", lambda self, frame: shown.append(frame) or embed(self, frame))
    sample_candidate(base, find_method("base").assemble([]), Trial("tam", "box"), ["a figure *"], PROTOCOL)
    assert shown[0].shape == (3, 32, 32)
    assert sprite_likeness(shown[0][None])[0, sprite_bank().sprites.index(FIGURES["tam"])] > 0.999


def test_the_papers_controller_has_a_rate_of_its_own():
    """At the sides' rate it runs to one side within a few steps, and the other then learns nothing."""
    for name in ("paper", "paper-guided"):
        train = find_method(name).runs(TRIAL, with_train(RECIPE, controller_learning_rate=5e-3))[0].recipe.train
        assert (train.rate("identity"), train.rate("motion"), train.rate("controller")) == (1e-2, 1e-2, 1e-4)
    changed = find_method("paper[controller_learning_rate=1e-3]").runs(TRIAL, RECIPE)[0].recipe.train
    assert (changed.rate("identity"), changed.rate("controller")) == (1e-2, 1e-3)


def test_the_methods_of_the_papers_ablation_differ_in_one_thing_each():
    whole = find_method("paper-guided").runs(TRIAL, RECIPE)[0].recipe
    for name, changed in (("fixed", {"has_controller": False, "share_schedule": ()}), ("one-group", {"num_groups": 1})):
        (run,) = find_method(f"paper-{name}").runs(TRIAL, RECIPE)
        assert run.recipe == replace(whole, pair={**whole.pair, **changed})
    sides = find_method("paper-separate").runs(TRIAL, RECIPE)
    assert [(run.trainer, run.recipe) for run in sides] == [("identity", whole), ("motion", whole)]


def test_a_free_controller_competes_at_the_rate_of_the_sides_and_at_a_slow_one():
    methods = [find_method("per-block"), *find_method("per-block").variants()]
    trains = [method.runs(TRIAL, RECIPE)[0].recipe.train for method in methods]
    assert [(train.rate("identity"), train.rate("controller")) for train in trains] == [(2e-3, 2e-3), (2e-3, 1e-4)]


def test_all_methods_train_the_same_number_of_steps():
    for method in METHODS.values():
        runs = with_needs(method.runs(TRIAL, RECIPE))
        halves = {"identity", "motion", "second-identity", "second-motion", "motiondirector", "sparse-identity", "sparse-motion"}
        trained = [run for run in runs if run.trainer not in ("prior", "gated", "gated-sum", "gated-by-loss")]
        steps = sum(run.recipe.train.steps // 2 if run.trainer in halves else run.recipe.train.steps for run in trained)
        assert steps == {"base": 0, "identity-only": 2, "motion-only": 2}.get(method.name, 4), method.name
