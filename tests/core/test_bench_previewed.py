"""The share schedule of a pair by previews."""

from __future__ import annotations

import pytest
import torch
from tiny import fill

from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import TOY_RECIPE
from dualreal_core.bench.joining import picked, previewed
from dualreal_core.bench.registry import find_method
from dualreal_core.method.pair import new_pair
from dualreal_core.metrics.preview_judge import Scores
from dualreal_core.toyworld.trial import Trial

OWN = (0.4, 0.4, 0.7, 0.9)


@pytest.mark.parametrize(
    ("best", "wins"),
    [
        (Scores(0.91, 0.92), "0.5"),
        (Scores(0.94, 0.9), "own"),  # previews do not tell that little apart
        (Scores(2.0, 0.87), "own"),  # more than the side alone is no merit
        (Scores(None, 0.95), "0.5"),
        (Scores(None, None), "own"),
    ],
)
def test_another_schedule_has_to_gain_something(best, wins):
    assert previewed.chosen({"own": Scores(0.9, 0.89), "0.5": best, "0.6": Scores(1.0, 0.8)}) == wins


def test_a_pair_is_previewed_on_schedules_and_against_its_own_sides(monkeypatch):
    monkeypatch.setattr(picked, "PREVIEW_STEPS", 1)
    base, seen = load_base("toyworld"), []
    shape = {"identity_kind": "lora", "motion_kind": "lora", "rank": 2, "alpha": 2.0, "scale": 2.0, "has_controller": False}
    pair = fill(new_pair(base.transformer, 0, **shape, share_schedule=OWN), 3, 0.02)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    rollouts = picked.rollouts
    monkeypatch.setattr(picked, "rollouts", lambda *given: (seen.append(given), rollouts(*given))[1])
    candidate = previewed.previewed(base, Trial("tam", "box"), pair)
    schedules = [given[3].plan.stages for given in seen if given[3] is not None]
    assert schedules == [OWN, *((early, early, *OWN[2:]) for early in previewed.EARLY_SHARES)]
    assert [(given[2] is pair, given[5]) for given in seen if given[3] is None] == [(True, (1, 0)), (True, (0, 1)), (False, (1, 1))]
    assert candidate.pair is pair and candidate.blend.plan.stages in schedules and candidate.note.startswith("early share ")
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())


def test_the_row_takes_the_run_of_ours():
    trial, recipe = Trial("tam", "box"), TOY_RECIPE
    assert find_method("ours-previewed").runs(trial, recipe) == find_method("ours").runs(trial, recipe)
    (before,) = find_method("ours-before").runs(trial, recipe)
    train = before.recipe.train
    assert (train.motion_ratio, train.identity_batch, train.motion_batch) == (0.4, 4, 4) and "preservation_batch" not in train.recorded()
