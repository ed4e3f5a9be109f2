"""The StageBlender's share schedule: shares it starts from over denoising, in training and in sampling."""

from __future__ import annotations

import pytest
import torch
from test_masking import Run, make_settings

from dualreal_core.method.blend import LearnedBlend, weights_at
from dualreal_core.method.pair import PairConfig
from dualreal_core.method.stage_blender import StageBlender, share_at
from dualreal_core.objective import FlowMatching, VPrediction
from dualreal_core.training.recipes import DUALREAL, FREE_CONTROLLER, PAPER

SHARE_SCHEDULE = (0.4, 0.4, 0.8)


def untrained(learned_range: float = 0.1, share_schedule: tuple[float, ...] = SHARE_SCHEDULE, inner_dim: int | None = None) -> StageBlender:
    torch.manual_seed(0)
    sizes = {"time_dim": 8, "token_dim": 6, "num_groups": 3, "inner_dim": inner_dim}
    return StageBlender(**sizes, scale=2.0, learned_range=learned_range, share_schedule=share_schedule)


def inputs(rows: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 8, generator=generator), [torch.randn(rows, 5, 6, generator=generator)]


def test_share_is_linear_between_evenly_spaced_points():
    stages = torch.tensor([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
    torch.testing.assert_close(share_at(SHARE_SCHEDULE, stages), torch.tensor([0.4, 0.4, 0.4, 0.4, 0.6, 0.8, 0.8]))
    assert share_at((0.3,), 0.9).tolist() == pytest.approx([0.3]) and share_at((0.0, 1.0), 0.25).tolist() == [0.25]


@pytest.mark.parametrize("inner_dim", [None, 3])
def test_an_untrained_controller_follows_its_course(inner_dim):
    weights = weights_at(LearnedBlend(untrained(inner_dim=inner_dim)), *inputs(3), torch.tensor([0.0, 0.75, 1.0]))
    expected = 2 * torch.tensor([0.4, 0.6, 0.8])[:, None].expand(3, 3)
    torch.testing.assert_close(weights, torch.stack([expected, 2 - expected], dim=-1))


def test_a_narrow_controller_still_reads_time_and_tokens():
    controller = untrained(learned_range=0.5, share_schedule=(), inner_dim=5)
    torch.nn.init.normal_(controller.out.weight)
    embedding, (tokens,) = inputs(1)
    weights = controller(embedding, [tokens])
    assert not torch.allclose(weights, controller(embedding + 1, [tokens]))
    assert not torch.allclose(weights, controller(embedding, [tokens + torch.randn(6, generator=torch.Generator().manual_seed(2))]))


def test_our_controller_stays_small_on_a_wide_base():
    def size(inner_dim: int | None) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in StageBlender(5120, 5120, 7, inner_dim=inner_dim).parameters())

    assert size(FREE_CONTROLLER["controller_dim"]) < 3e6 < 3e8 < size(PAPER.pair.get("controller_dim"))


def test_one_stage_counts_for_all_rows_and_the_middle_where_none_is_known():
    controller = untrained()
    blend = LearnedBlend(controller)
    assert torch.equal(weights_at(blend, *inputs(2), 1.0), weights_at(blend, *inputs(2), torch.tensor([1.0, 1.0])))
    assert torch.equal(controller(*inputs(2)), weights_at(blend, *inputs(2), 0.5))


@pytest.mark.parametrize("push", [-50.0, 50.0])
def test_learned_shares_stay_within_bounds_of_the_course(push):
    controller = untrained(learned_range=0.1)
    with torch.no_grad():
        controller.out.bias.fill_(push)
    share = weights_at(LearnedBlend(controller), *inputs(2), torch.tensor([0.0, 1.0]))[..., 0] / 2
    torch.testing.assert_close(share, torch.tensor([0.4, 0.8])[:, None].expand(2, 3) + (0.1 if push > 0 else -0.1))
    free = untrained(learned_range=0.5)
    with torch.no_grad():
        free.out.bias.fill_(push)
    most, least = (weights_at(LearnedBlend(free), *inputs(1), stage)[..., 0] for stage in (1.0, 0.0))
    assert most.max() <= 2 and least.min() >= 0


def test_without_a_course_the_stage_does_not_matter():
    controller = untrained(share_schedule=())
    torch.nn.init.normal_(controller.out.weight)
    assert torch.equal(*(weights_at(LearnedBlend(controller), *inputs(2), stage) for stage in (0.0, 1.0)))
    assert PAPER.pair.get("share_schedule", ()) == () and DUALREAL.pair["share_schedule"][0] < 0.5 < DUALREAL.pair["share_schedule"][-1]


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_stage_of_a_timestep_is_its_place_among_the_samplers_steps(shift):
    place = torch.linspace(0, 1, 9)
    sigmas = shift * (1 - place) / (1 + (shift - 1) * (1 - place))
    torch.testing.assert_close(FlowMatching(shift).stage(1000 * sigmas), place)
    objective = VPrediction(tuple(torch.linspace(0.99, 0, 1000).tolist()))
    torch.testing.assert_close(objective.stage(torch.tensor([999, 0])), torch.tensor([0.0, 1.0]))


def test_training_weighs_each_sample_by_its_own_stage():
    settings = make_settings(steps=4, motion_batch=3, motion_ratio=1.0)
    run = Run(settings=settings, is_filled=False, share_schedule=SHARE_SCHEDULE, scale=2.0, learned_range=0.01)
    timesteps, seen = [], []
    add_noise, blend = run.base.objective.add_noise, run.attachment.blend

    def noted(latents, noise, timestep):
        timesteps.append(timestep)
        return add_noise(latents, noise, timestep)

    class Watched:
        scheduled = staticmethod(blend.scheduled)

        def weights(self, embedding, tokens, scheduled):
            seen.append(blend.weights(embedding, tokens, scheduled))
            return seen[-1]

    object.__setattr__(run.base.objective, "add_noise", noted)
    run.attachment.blend = Watched()
    for _ in run.steps:
        pass
    for timestep, used in zip(timesteps, seen, strict=True):
        share = share_at(SHARE_SCHEDULE, run.base.objective.stage(timestep))
        assert ((used[:, :, 0] / 2 - share[:, None]).abs() <= 0.01 + 1e-6).all()
    assert len({round(used[0, 0, 0].item(), 3) for used in seen}) > 1
    assert run.attachment.stage is None


@pytest.mark.parametrize("share_schedule", [(1.2,), (0.5, -0.1)])
def test_shares_outside_their_range_are_refused(share_schedule):
    with pytest.raises(ValueError, match="share_schedule"):
        PairConfig(family="wan", dim=1, num_blocks=7, time_dim=1, share_schedule=share_schedule)
