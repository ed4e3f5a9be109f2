"""Plans drawn by hand, and the record of what was used."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyBase, fill, make_pair, model_inputs
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import PLANS, BlendRecord, LearnedBlend, SharePlan, weights_at
from dualreal_core.precision import lowered


def share_of(plan: SharePlan, stage: float, depth: float) -> float:
    """The identity's share at one place."""
    return plan.shares(stage, torch.tensor([depth])).item()


@pytest.mark.parametrize(
    ("plan", "stage", "depth", "share"),
    [
        (SharePlan(), 0.3, 0.9, 0.5),
        (SharePlan((0.2, 0.8)), 0.0, 0.0, 0.2),
        (SharePlan((0.2, 0.8)), 0.5, 0.0, 0.5),
        (SharePlan((0.2, 0.8)), 1.0, 1.0, 0.8),
        (SharePlan((0.5, 0.7, 0.5)), 0.25, 0.0, 0.6),
        (SharePlan((0.2, 0.8), (0.5, 0.4)), 1.0, 1.0, 0.7),
        (SharePlan((0.9,), (0.9,)), 0.5, 0.5, 1.0),
        (SharePlan((0.2, 0.8)), 7.0, -1.0, 0.8),
    ],
)
def test_share(plan, stage, depth, share):
    assert share_of(plan, stage, depth) == pytest.approx(share)


@pytest.mark.parametrize("values", [(), (0.5, 1.2), (-0.1,)])
def test_shares_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        SharePlan(values)
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        SharePlan(depths=values)


@pytest.mark.parametrize("name", PLANS)
def test_planned_weights_reach_every_group(name):
    base = TinyBase("wan", 5)
    pair = fill(make_pair(base, num_groups=3, scale=2.0))
    record = BlendRecord()
    with Attachment(base.transformer, pair, PLANS[name].blend(pair.config)) as attachment, torch.no_grad():
        attachment.record = record
        for stage in (0.0, 0.5, 1.0):
            attachment.stage = stage
            base.predict(*model_inputs())
            attachment.finish_call()
    table = record.table()
    expected = [[2 * share_of(PLANS[name], stage, group / 2) for group in range(3)] for stage in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(table[..., 0], torch.tensor(expected))
    torch.testing.assert_close(table.sum(-1), torch.full((3, 3), 2.0))


def test_each_sample_is_weighed_by_its_own_stage():
    plan = SharePlan((0.2, 0.8), (0.5, 0.4)).blend(make_pair(TinyBase("wan", 4), num_groups=3, scale=2.0).config)
    stages = torch.tensor([0.0, 0.25, 1.0])
    together = weights_at(plan, torch.zeros(3, 8), [], stages)
    assert together.shape == (3, 3, 2)
    for row, stage in enumerate(stages.tolist()):
        torch.testing.assert_close(together[row], weights_at(plan, torch.zeros(1, 8), [], stage)[0])


def test_the_papers_trend():
    """Identity grows as denoising proceeds; in the deepest blocks the motion grows (paper, section 4.4)."""
    plan = PLANS["paper trend"]
    assert share_of(plan, 1, 0.5) > share_of(plan, 0, 0.5) and share_of(plan, 0.5, 1) < share_of(plan, 0.5, 0)


def test_calls_at_one_stage_count_as_one_and_clear_forgets():
    record = BlendRecord()
    for stage, share in ((0.0, 0.2), (0.5, 0.4), (0.5, 0.6), (1.0, 0.8)):
        record.add(torch.full((1, 2, 2), share), stage)
    torch.testing.assert_close(record.table()[:, 0, 0], torch.tensor([0.2, 0.5, 0.8]))
    assert record.positions() == [0.0, 0.5, 1.0]
    record.clear()
    record.add(torch.zeros(1, 2, 2))
    assert record.table().shape == (1, 2, 2) and record.positions() == []


def test_of_rows_at_stages_of_their_own_the_watched_one_counts():
    record = BlendRecord(row=1)
    for stages in ([0.1, 0.7], [0.9, 0.2], [0.4, 0.2]):
        record.add(torch.tensor(stages)[:, None, None].expand(2, 1, 2), torch.tensor(stages))
    assert record.positions() == pytest.approx([0.2, 0.7])
    torch.testing.assert_close(record.table()[:, 0, 0], torch.tensor([0.2, 0.7]))


class Sizes(TorchDispatchMode):
    """Number of elements of every tensor that is made, by type."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[torch.dtype, list[int]] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.made.setdefault(leaf.dtype, []).append(leaf.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tokens_are_pooled_before_they_are_cast(dtype):
    """A float32 copy of all tokens of a large video takes gigabytes."""
    pair = fill(make_pair(TinyBase("cogvideox", 3)))
    generator = torch.Generator().manual_seed(0)
    streams = [torch.randn(2, count, 32, generator=generator).to(dtype) for count in (300, 2000)]
    embedding = torch.randn(2, 24, generator=generator).to(dtype)
    with torch.no_grad():
        expected = pair.controller(embedding.float(), [stream.float() for stream in streams])
        with Sizes() as sizes:
            weights = weights_at(LearnedBlend(pair.controller), embedding, streams)
    assert torch.equal(weights, expected)
    assert max(sizes.made[torch.float32]) < streams[0].numel()


@pytest.mark.parametrize("share_schedule", [(), (0.4, 0.9)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_controller_computes_in_float32_whatever_is_around_it(dtype, share_schedule):
    """In the lower precision a range of a hundredth holds three values, and a cast pair has other weights than one that is not."""
    settings = {"learned_range": 0.01, "scale": 2.0, "num_groups": 3, "share_schedule": share_schedule}
    pair, cast = (fill(make_pair(TinyBase("wan", 3), **settings)) for _ in range(2))
    cast.to(dtype)
    assert {weight.dtype for weight in cast.sides.parameters()} == {dtype}
    generator = torch.Generator().manual_seed(0)
    embedding, tokens = torch.randn(64, 32, generator=generator).to(dtype), torch.randn(64, 8, 32, generator=generator).to(dtype)
    with torch.no_grad():
        exact = weights_at(LearnedBlend(pair.controller), embedding.float(), [tokens.float()], 0.3)
        with torch.autocast("cpu", torch.bfloat16):
            for one in (pair, cast):
                weights = weights_at(LearnedBlend(one.controller), embedding, [tokens], 0.3)
                assert torch.equal(weights, exact)
    assert len(exact.unique()) > 300


def test_a_pair_keeps_its_controller_in_float32_however_it_is_cast():
    def pair():
        return fill(make_pair(TinyBase("wan", 3)))

    exact = dict(pair().controller.state_dict())
    for cast in (pair().to(torch.bfloat16), pair().half(), pair().bfloat16(), pair().to("cpu", torch.float16), pair().half().float()):
        assert all(torch.equal(tensor, exact[name]) for name, tensor in cast.controller.state_dict().items())
    doubled = pair().double()
    assert {weight.dtype for weight in doubled.parameters()} == {torch.float64}
    assert {weight.dtype for weight in doubled.float().parameters()} == {torch.float32}
    assert {weight.device.type for weight in pair().to("meta", torch.bfloat16).parameters()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_only_a_float32_base_is_lowered_and_only_where_that_is_asked_for(dtype):
    base = TinyBase("wan", 3)
    base.transformer.to(dtype)
    for is_asked_for in (False, True):
        with lowered(base, is_asked_for):
            assert torch.is_autocast_enabled("cpu") is (is_asked_for and dtype == torch.float32)
