"""Which timesteps a side trains at: the base's own, or gathered where the course favours it."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyBase, all_items, make_pair

from dualreal_core.method.attach import Attachment
from dualreal_core.objective import FlowMatching, VPrediction
from dualreal_core.training.evaluation import Evaluator
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState
from dualreal_core.training.timesteps import draw_timesteps
from dualreal_core.training.validation import split_items

SHARE_SCHEDULE = (0.4, 0.4, 0.7, 0.9)
OBJECTIVES = [FlowMatching(shift=3.0), VPrediction(tuple(torch.linspace(0.999, 0.01, 1000).tolist()))]


def stages(objective, role, focus, share_schedule=SHARE_SCHEDULE, count=20_000) -> torch.Tensor:
    return objective.stage(draw_timesteps(objective, count, torch.Generator().manual_seed(0), role, share_schedule, focus))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_without_focus_or_course_they_are_the_objectives_own_bit_for_bit(objective):
    own = objective.sample_timesteps(64, torch.Generator().manual_seed(3))
    for share_schedule, focus in ((SHARE_SCHEDULE, 0.0), ((), 2.0)):
        drawn = draw_timesteps(objective, 64, torch.Generator().manual_seed(3), "motion", share_schedule, focus)
        assert torch.equal(drawn, own) and drawn.dtype == own.dtype


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_motion_gathers_early_and_identity_late(objective):
    even = stages(objective, "motion", 0.0).mean()
    for focus in (1.0, 2.0):
        assert stages(objective, "motion", focus).mean() < even - 0.03
        assert stages(objective, "identity", focus).mean() > even + 0.03
    assert stages(objective, "motion", 2.0).mean() < stages(objective, "motion", 1.0).mean()


def test_density_follows_the_share():
    """Over two stages of equal density under the objective, counts relate as the shares do, up to what eight candidates can offer."""
    objective = VPrediction((0.5,) * 2)
    for role, ratio in (("identity", 0.75 / 0.25), ("motion", 0.25 / 0.75)):
        drawn = stages(objective, role, 1.0, share_schedule=(0.25, 0.75))
        assert (drawn == 1).sum() / (drawn == 0).sum() == pytest.approx(ratio, rel=0.15)


def test_a_share_of_nothing_everywhere_still_draws():
    for focus in (2.0, 1000.0):
        drawn = draw_timesteps(OBJECTIVES[0], 16, torch.Generator().manual_seed(0), "identity", (0.0, 0.0), focus)
        assert drawn.shape == (16,) and drawn.isfinite().all()


def test_training_draws_by_the_course_of_the_pair():
    base, seen = TinyBase("wan", 2), {"identity": [], "motion": []}
    pair = make_pair(base, num_groups=2, share_schedule=(0.0, 1.0), scale=2.0)
    settings = TrainSettings(steps=40, warmup_steps=0, motion_batch=2, identity_batch=2, learning_rate=1e-4, timestep_bias=3.0)
    with Attachment(base.transformer, pair) as attachment:
        attachment.blend = blend = _Watched(attachment)
        for done in train(base, attachment, all_items(), settings, RunState.start(pair, settings)):
            seen[done.role] += blend.take()
    means = {role: torch.cat(values).mean() for role, values in seen.items()}
    assert means["identity"] > means["motion"] + 0.2


def test_crossing_draws_as_the_base_does():
    """The own data gathers late; the clips, seen with the side off and on, lie at the same stages and on both halves."""
    base = TinyBase("wan", 2)
    pair = make_pair(base, num_groups=2, share_schedule=(0.0, 1.0), scale=2.0)
    settings = TrainSettings(steps=40, warmup_steps=0, motion_batch=2, learning_rate=1e-4, motion_ratio=0.0,
                             preservation_ratio=1.0, timestep_bias=50.0)  # fmt: skip
    with Attachment(base.transformer, pair) as attachment:
        attachment.blend = blend = _Watched(attachment)
        list(train(base, attachment, all_items(), settings, RunState.start(pair, settings)))
    seen = blend.take()
    own, off, on = (torch.cat(seen[part::3]) for part in range(3))
    assert torch.equal(off, on) and len(on) == 80 and len(own) == 40
    even = base.objective.stage(base.objective.sample_timesteps(4000, torch.Generator().manual_seed(0))).mean()
    assert abs(on.mean() - even) < 0.08 and own.mean() > even + 0.2


class _Watched:
    """A blend that keeps the stages of the calls that it was asked in."""

    def __init__(self, attachment) -> None:
        self.attachment, self.blend, self.stages = attachment, attachment.blend, []
        self.scheduled = self.blend.scheduled

    def weights(self, embedding, tokens, scheduled) -> torch.Tensor:
        self.stages.append(self.attachment.stage)
        return self.blend.weights(embedding, tokens, scheduled)

    def take(self) -> list[torch.Tensor]:
        taken, self.stages = self.stages, []
        return taken


RANGES = [(0.0, 0.875), (0.875, 1.0), (0.3, 0.6), (0.0, 0.01), (0.999, 1.0)]


@pytest.mark.parametrize("within", RANGES)
@pytest.mark.parametrize("objective", [FlowMatching(shift=8.0), FlowMatching(shift=1.0, logit_std=1.2, timestep_scale=1.0), OBJECTIVES[1]])
def test_a_range_of_noise_cuts_the_distribution_off(objective, within):
    """Quantiles are those of the draws of the whole range that lie within; nothing gathers at the ends."""
    whole = objective.sample_timesteps(400_000, torch.Generator().manual_seed(0))
    levels = objective.levels(whole, torch.device("cpu"))[1].flatten().double()
    expected = levels[(levels >= within[0]) & (levels < within[1])].sort().values
    if isinstance(objective, VPrediction) and not len(expected):
        with pytest.raises(ValueError, match="none of the model's noise levels"):
            objective.sample_within(1, torch.Generator(), within)
        return
    drawn = objective.sample_within(20_000, torch.Generator().manual_seed(1), within)
    assert drawn.dtype == whole.dtype and torch.equal(drawn, objective.sample_within(20_000, torch.Generator().manual_seed(1), within))
    found = objective.levels(drawn, torch.device("cpu"))[1].flatten().double().sort().values
    assert found.min() >= within[0] - 1e-7 and found.max() < within[1]
    if isinstance(objective, FlowMatching):
        assert drawn.unique(return_counts=True)[1].max() < 20
    if len(expected) > 1000:
        places = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
        spread = within[1] - within[0]
        assert (found.quantile(places) - expected[:: len(expected) // 20_000 + 1].quantile(places)).abs().max() < 0.03 * spread


@pytest.mark.parametrize("within", [(0.0, 1e-6), (1 - 1e-6, 1.0), (0.5, 0.5 + 1e-9)])
def test_the_narrowest_ranges_still_draw_inside(within):
    for objective in (FlowMatching(shift=8.0), FlowMatching(shift=2.37, timestep_scale=1.0)):
        levels = objective.levels(objective.sample_within(500, torch.Generator().manual_seed(0), within), torch.device("cpu"))[1]
        assert levels.isfinite().all() and levels.min() >= within[0] - 1e-7 and levels.max() <= within[1] + 1e-7


@pytest.mark.parametrize("role", ["identity", "motion"])
def test_the_bias_works_within_the_range(role):
    objective, within = FlowMatching(shift=8.0), (0.5, 0.9)
    drawn = [draw_timesteps(objective, 20_000, torch.Generator().manual_seed(0), role, (0.0, 1.0), bias, within) for bias in (0.0, 3.0)]
    for timesteps in drawn:
        assert timesteps.min() >= 500 and timesteps.max() < 900
    even, biased = (objective.stage(timesteps).mean() for timesteps in drawn)
    assert biased > even + 0.02 if role == "identity" else biased < even - 0.02


@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_nothing_of_a_run_lies_outside_its_range(family):
    """Own data, preservation and evaluations."""
    base, within = TinyBase(family, 2), (0.4, 0.7)
    pair = make_pair(base, num_groups=2, share_schedule=(0.2, 0.8))
    settings = TrainSettings(
        steps=12, warmup_steps=0, motion_batch=2, preservation_ratio=1.0, motion_ratio=0.3, timestep_bias=1.0, evaluate_every=4,
        sigma_min=within[0], sigma_max=within[1],
    )  # fmt: skip
    levels, predict = [], base.predict
    base.predict = lambda latents, timestep, text: (
        levels.append(base.objective.levels(timestep, torch.device("cpu"))[1].flatten()),
        predict(latents, timestep, text),
    )[1]
    splits = {role: split_items(items, role, 0.0, 0) for role, items in all_items().items()}
    with Attachment(base.transformer, pair) as attachment:
        list(train(base, attachment, all_items(), settings, RunState.start(pair, settings)))
        trained = len(levels)
        Evaluator(base, attachment, splits, settings).evaluate(12)
    seen = torch.cat(levels)
    assert trained > 12 and len(levels) > trained
    assert seen.min() >= within[0] and seen.max() < within[1] and seen.max() - seen.min() > 0.15
