"""No competitor of the benchmark is handicapped: all see the same figure, and train as many steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dualreal_core.bases import load_base
from dualreal_core.bench.cells import Protocol, sample_videos
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial
from dualreal_core.bench.pieces import unique
from dualreal_core.bench.rows import ROWS, Subject, find_row
from dualreal_core.toyworld.figures import FIGURES
from dualreal_core.toyworld.scores import named_sprites, sprite_likeness, templates
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import with_train

SUBJECT = Subject("tam", "box", 0)
RECIPE = with_train(TOY_RECIPE, steps=4, identity_batch=1, motion_batch=1, warmup_steps=0, evaluate_every=0)
PROTOCOL = Protocol(RECIPE, sampling_steps=1)


@pytest.fixture(scope="module")
def base():
    return load_base("toyworld")


def test_every_row_sees_the_figure_as_large_as_it_is_asked_for(base, tmp_path):
    """A photo scaled down to a frame would teach a figure that its own score does not know."""
    sprites = named_sprites()
    bank, target = templates(sprites), sprites.index(FIGURES[SUBJECT.identity])
    recipes = [piece.recipe for row in ROWS.values() for piece in unique(row.plan(SUBJECT, RECIPE))]
    cuts = {(recipe.num_crops, recipe.crop_margin): recipe for recipe in recipes}
    for number, recipe in enumerate(cuts.values()):
        items = load_trial(base, Trial("tam", "box"), recipe, tmp_path / str(number))["identity"].items
        with base.encoders(), torch.no_grad():
            photos = torch.cat([base.decode_latents(item.latents) for item in items])
        assert sprite_likeness(photos, bank)[:, target].min() > 0.95


def test_a_conditioned_pair_is_shown_the_figure_as_large_as_in_a_clip(base, monkeypatch):
    shown, embed = [], type(base).embed_image
    monkeypatch.setattr(type(base), "embed_image", lambda self, frame: shown.append(frame) or embed(self, frame))
    sample_videos(base, find_row("base").assemble([], {}), Trial("tam", "box"), ["a figure *"], PROTOCOL)
    sprites = named_sprites()
    assert shown[0].shape == (3, 32, 32)
    assert sprite_likeness(shown[0][None], templates(sprites))[0, sprites.index(FIGURES["tam"])] > 0.999


def test_the_published_controller_has_a_rate_of_its_own():
    """At the sides' rate it runs to one side within a few steps, and the other then learns nothing."""
    for name in ("paper", "published-guided"):
        train = find_row(name).plan(SUBJECT, with_train(RECIPE, controller_learning_rate=5e-3))[0].recipe.train
        assert (train.rate("identity"), train.rate("motion"), train.rate("controller")) == (1e-2, 1e-2, 1e-4)
    changed = find_row("published[controller_learning_rate=1e-3]").plan(SUBJECT, RECIPE)[0].recipe.train
    assert (changed.rate("identity"), changed.rate("controller")) == (1e-2, 1e-3)


def test_the_published_rows_of_the_ablation_differ_in_one_thing_each():
    whole = find_row("published-guided").plan(SUBJECT, RECIPE)[0].recipe
    for name, changed in (("fixed", {"learned_range": 0.0, "share_schedule": ()}), ("one-group", {"num_groups": 1})):
        (piece,) = find_row(f"published-{name}").plan(SUBJECT, RECIPE)
        assert piece.recipe == replace(whole, pair={**whole.pair, **changed})
    sides = find_row("published-separate").plan(SUBJECT, RECIPE)
    assert [(piece.trainer, piece.recipe) for piece in sides] == [("identity", whole), ("motion", whole)]


def test_a_free_controller_competes_at_the_rate_of_the_sides_and_at_a_slow_one():
    rows = [find_row("per-block"), *find_row("per-block").variants()]
    trains = [row.plan(SUBJECT, RECIPE)[0].recipe.train for row in rows]
    assert [(train.rate("identity"), train.rate("controller")) for train in trains] == [(2e-3, 2e-3), (2e-3, 1e-4)]


def test_all_rows_train_the_same_number_of_steps():
    for row in ROWS.values():
        pieces = unique(row.plan(SUBJECT, RECIPE))
        halves = {"identity", "motion", "second-identity", "second-motion", "motiondirector"}
        steps = sum(piece.recipe.train.steps // 2 if piece.trainer in halves else piece.recipe.train.steps for piece in pieces)
        assert steps == {"base": 0, "identity-only": 2, "motion-only": 2}.get(row.name, 4), row.name
