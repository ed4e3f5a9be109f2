"""Cross steps: a side sees the other side's data and learns to leave its prediction alone; nothing else moves."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import TinyBase, all_items, fill, is_same, make_pair

from dualreal_core.attach import Attachment
from dualreal_core.pair import Role
from dualreal_core.training.loop import StepDone, train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

ALWAYS = {"identity_cross_ratio": 1.0, "motion_cross_ratio": 1.0}


def run(pair, base: TinyBase, **changes: object) -> list[tuple[StepDone, dict, dict]]:
    """Steps with the state before and after each."""
    settings = TrainSettings(**{"steps": 12, "warmup_steps": 0, "motion_batch": 2, "learning_rate": 1e-2, **changes})
    state, seen = RunState.start(pair, settings), []
    with Attachment(base.transformer, pair) as attachment:
        before = copy.deepcopy(state.state_dict(pair))
        for done in train(base, attachment, all_items(), settings, state):
            after = copy.deepcopy(state.state_dict(pair))
            seen.append((done, before, after))
            before = after
    return seen


def resting(role: Role) -> Role:
    return "motion" if role == "identity" else "identity"


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
def test_only_the_trained_side_moves(kind):
    base = TinyBase("wan", 2)
    seen = run(fill(make_pair(base, kind, num_groups=2)), base, **ALWAYS)
    assert {done.role for done, _, _ in seen} == {"identity", "motion"}
    for done, before, after in seen:
        assert done.source == resting(done.role)
        for part in (resting(done.role), "controller"):
            assert is_same(before["optimizers"][part], after["optimizers"][part])
        moved = {name for name in after["pair"] if not torch.equal(before["pair"][name], after["pair"][name])}
        assert moved
        assert all(name.startswith(f"sides.{done.role}.") for name in moved)


@pytest.mark.parametrize("role", ["identity", "motion"])
def test_each_side_has_a_share_of_its_own(role: Role):
    base = TinyBase("wan", 2)
    for done, _, _ in run(make_pair(base, num_groups=2), base, **{f"{role}_cross_ratio": 1.0}):
        assert (done.source != done.role) == (done.role == role)


def test_harm_falls():
    base = TinyBase("wan", 2)
    seen = run(fill(make_pair(base, num_groups=2)), base, **ALWAYS, steps=80)
    for role in ("identity", "motion"):
        losses = [done.loss for done, _, _ in seen if done.role == role]
        assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_neutral_side_does_no_harm():
    base = TinyBase("cogvideox", 2)
    seen = run(make_pair(base, num_groups=2), base, **ALWAYS, steps=1)
    assert [done.loss for done, _, _ in seen] == [0.0]


def test_published_recipe_has_none():
    base = TinyBase("wan", 2)
    assert all(done.source == done.role for done, _, _ in run(make_pair(base, num_groups=2), base))
