"""Prior preservation: the identity also sees clips and learns to keep the motion's prediction on them; nothing else moves."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny import TinyBase, all_items, fill, is_same, make_pair

from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import AdapterPair, Role
from dualreal_core.training.loop import DivergedError, StepResult, train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState

ALWAYS = {"preservation_ratio": 1.0}


def run(pair: AdapterPair, base: TinyBase, **changes: object) -> list[tuple[StepResult, dict, dict]]:
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


def other(role: Role) -> Role:
    return "motion" if role == "identity" else "identity"


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
def test_the_frozen_side_does_not_move(kind):
    base = TinyBase("wan", 2)
    seen = run(fill(make_pair(base, kind, num_groups=2)), base, **ALWAYS)
    assert {done.role for done, _, _ in seen} == {"identity", "motion"}
    for done, before, after in seen:
        assert (done.preservation_loss is not None) == (done.role == "identity")
        assert is_same(before["optimizers"][other(done.role)], after["optimizers"][other(done.role)])
        moved = {name for name in after["pair"] if not torch.equal(before["pair"][name], after["pair"][name])}
        assert any(name.startswith(f"sides.{done.role}.") for name in moved)
        assert not any(name.startswith(f"sides.{other(done.role)}.") for name in moved)


def test_both_sides_are_on_where_it_preserves_though_the_frozen_one_is_out_of_the_own_pass():
    base, seen = TinyBase("wan", 2), []
    pair = fill(make_pair(base, num_groups=2))
    settings = TrainSettings(steps=2, motion_ratio=0.0, frozen_adapter_dropout=1.0, **ALWAYS)
    with Attachment(base.transformer, pair) as attachment:
        predict = base.predict
        base.predict = lambda *given: (seen.append((attachment.strengths["identity"], attachment.strengths["motion"])), predict(*given))[1]
        list(train(base, attachment, all_items(), settings, RunState.start(pair, settings)))
    assert seen == [(1, 0), (0, 1), (1, 1)] * 2


def test_recomputed_blocks_see_the_same_sides():
    """With gradient checkpointing the forward pass of each batch is done again while its gradients are made."""
    ends = {}
    for is_checkpointed in (False, True):
        base = TinyBase("wan", 2)
        pair = fill(make_pair(base, num_groups=2))
        run(pair, base, **ALWAYS, steps=4, frozen_adapter_dropout=1.0, accumulation=2, gradient_checkpointing=is_checkpointed)
        ends[is_checkpointed] = pair.state_dict()
    # Adam divides by the size of a gradient: where that is all rounding, a step of rounding is left
    for name, value in ends[False].items():
        torch.testing.assert_close(ends[True][name], value, rtol=1e-4, atol=1e-4, msg=name)


def test_the_controller_learns_from_the_own_data_alone():
    """A first step with preservation moves it as one without: preservation alone would pull it elsewhere."""
    base, moved = TinyBase("wan", 2), []
    for ratio in (0.0, 1.0):
        pair = fill(make_pair(base, num_groups=2))
        ((_, _, after),) = run(pair, base, motion_ratio=0.0, preservation_ratio=ratio, steps=1, clip_norm=1e9)
        moved.append({name: value for name, value in after["pair"].items() if name.startswith("controller")})
    assert moved[0] and is_same(*moved)


def test_it_keeps_the_identity_from_harming_the_motions_prediction():
    """After training on photos with preservation, it changes the prediction on clips less, by far, than after training without."""
    harm = {}
    for ratio in (0.0, 1.0):
        base = TinyBase("wan", 2)
        pair = fill(make_pair(base, num_groups=2))
        run(pair, base, motion_ratio=0.0, preservation_ratio=ratio, steps=80)
        harm[ratio] = change_of_prediction(base, pair)
    assert harm[1.0] < 0.6 * harm[0.0]


def change_of_prediction(base: TinyBase, pair: AdapterPair) -> float:
    """Mean squared change that the identity makes to the motion's prediction on clips."""
    generator = torch.Generator().manual_seed(5)
    items = all_items()["motion"]
    latents = torch.stack([item.latents for item in items])
    noise, timestep = torch.randn(latents.shape, generator=generator), base.objective.sample_timesteps(len(items), generator)
    noisy, text = base.objective.add_noise(latents, noise, timestep), base.batch_texts([item.text for item in items])
    outputs = []
    with Attachment(base.transformer, pair) as attachment, torch.no_grad():
        for strength in (0.0, 1.0):
            attachment.strengths = {"identity": strength, "motion": 1.0}
            attachment.stage = base.objective.stage(timestep)
            outputs.append(base.predict(noisy, timestep, text))
    return float((outputs[1] - outputs[0]).square().mean())


def test_a_neutral_side_does_no_harm():
    base = TinyBase("cogvideox", 2)
    ((done, _, _),) = run(make_pair(base, num_groups=2), base, **ALWAYS, motion_ratio=0.0, steps=1)
    assert done.preservation_loss == 0 and done.loss > 0


def test_a_loss_that_is_no_number_changes_nothing():
    """Also where it is preservation that fails, after the own data went through."""
    base = TinyBase("wan", 2)
    pair, items = fill(make_pair(base, num_groups=2)), all_items()
    items["motion"] = [replace(item, latents=item.latents * torch.inf) for item in items["motion"]]
    settings = TrainSettings(steps=3, motion_ratio=0.0, preservation_ratio=1.0)
    state = RunState.start(pair, settings)
    before = copy.deepcopy(state.state_dict(pair))
    with Attachment(base.transformer, pair) as attachment, pytest.raises(DivergedError, match="identity loss is nan on the motion data"):
        list(train(base, attachment, items, settings, state))
    assert is_same(before, state.state_dict(pair))


def test_the_papers_recipe_has_none():
    base = TinyBase("wan", 2)
    assert all(done.preservation_loss is None for done, _, _ in run(make_pair(base, num_groups=2), base))


@pytest.mark.parametrize(("size", "seen"), [(None, 3), (1, 1), (2, 2), (8, 3)])
def test_it_looks_at_no_more_clips_than_it_is_told(size, seen):
    base, calls = TinyBase("wan", 2), []
    pair = fill(make_pair(base, num_groups=2))
    settings = TrainSettings(steps=2, motion_ratio=0.0, identity_batch=2, motion_batch=3, preservation_batch=size, **ALWAYS)
    with Attachment(base.transformer, pair) as attachment:
        predict = base.predict
        base.predict = lambda noisy, *given: (calls.append(len(noisy)), predict(noisy, *given))[1]
        list(train(base, attachment, all_items(), settings, RunState.start(pair, settings)))
    assert calls == [2, seen, seen] * 2


def test_how_many_is_recorded_only_where_it_counts():
    """So that runs from before go on, and keep their names, where nothing changes for them."""
    for changes in ({"preservation_batch": 3}, {"preservation_batch": None}, {"preservation_batch": 1, "preservation_ratio": 0.0}):
        assert "preservation_batch" not in TrainSettings(**{**ALWAYS, **changes}).recorded()
    assert TrainSettings(**ALWAYS, preservation_batch=2).recorded()["preservation_batch"] == 2
    with pytest.raises(ValueError, match="preservation_batch is 0; it must be at least 1"):
        TrainSettings(preservation_batch=0)
