"""Prior preservation: the base's own videos and stills come into the sets half and half, and are of plain captions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from dualreal_core.bases import load_base
from dualreal_core.bench import prior
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial
from dualreal_core.bench.registry import find_method
from dualreal_core.method.pair import ROLES
from dualreal_core.toyworld.paths import BASE_MOTIONS, MOTIONS
from dualreal_core.toyworld.trial import TRIGGER, Trial
from dualreal_core.training.recipes import with_train

TRIAL = Trial("tam", "box")


@pytest.fixture(scope="module")
def base():
    return load_base("toyworld")


@pytest.fixture
def in_one_step(monkeypatch):
    monkeypatch.setattr(prior, "PRIOR_STEPS", 1)
    monkeypatch.setattr(prior, "NUM_OWN", 20)


def test_captions_name_neither_side_and_cover_all_known_motions_evenly():
    stills, videos = (prior.prior_captions(role, 0) for role in ROLES)
    phrases = Counter(next(name for name in BASE_MOTIONS if f" {MOTIONS[name].phrase} on " in caption) for caption in videos)
    assert set(phrases.values()) == {prior.NUM_OWN // len(BASE_MOTIONS)} and len(phrases) == len(BASE_MOTIONS)
    assert not any(TRIGGER in caption for caption in stills + videos)
    assert not any(MOTIONS[name].phrase in caption for caption in stills for name in MOTIONS)
    assert prior.prior_captions("motion", 1) != videos == prior.prior_captions("motion", 0)


def test_sets_are_half_and_half_and_of_one_shape(base, in_one_step, tmp_path):
    data = load_trial(base, TRIAL, TOY_RECIPE, tmp_path)
    latents = prior.sample_prior(base, 0)
    assert latents["stills"].shape[2] == 1 and latents["videos"].shape[2] == 9
    both = prior.mixed(base, data, latents, 0, ROLES)
    for role in ROLES:
        items = both[role].items
        share = sum(item.source.startswith("prior") for item in items) / len(items)
        assert 0.4 <= share <= 0.6 and len({item.latents.shape for item in items}) == 1
        assert {id(item) for item in data[role].items} <= {id(item) for item in items}
    clips_alone = prior.mixed(base, data, latents, 0, ("motion",))
    assert clips_alone["identity"] is data["identity"] and len(clips_alone["motion"].items) == len(both["motion"].items)


def test_the_base_s_own_are_made_once_for_all_pairs():
    recipe = with_train(TOY_RECIPE, steps=4)
    methods = ("prior-preservation", "prior-preservation-clips")
    runs = [run for name in methods for motion in ("box", "hook") for run in find_method(name).runs(Trial("tam", motion), recipe)]
    assert len({need.key for run in runs for need in run.needs}) == 1
    assert find_method("no-gate").runs(TRIAL, recipe)[0].recipe == find_method("prior-preservation").runs(TRIAL, recipe)[0].recipe


def test_no_still_is_cut_as_a_photo_is(base, in_one_step):
    items = prior.prior_items(base, "identity", prior.sample_prior(base, 0)["stills"], 0)
    assert len(items) == 20 and all(item.mask is None and item.conditions is None for item in items)
    assert torch.isfinite(items[0].latents).all() and items[0].text.shape[-1] == 128
