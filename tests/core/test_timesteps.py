"""Which timesteps a side trains at: the base's own, or gathered where the course favours it."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyBase, all_items, make_pair

from dualreal_core.method.attach import Attachment
from dualreal_core.objective import FlowMatching, VPrediction
from dualreal_core.training.loop import train
from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState
from dualreal_core.training.timesteps import draw_timesteps

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
