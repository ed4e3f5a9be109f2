"""Plans drawn by hand, and the record of what was used."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyBase, fill, make_pair, model_inputs

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import PLANS, BlendRecord, SharePlan


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
    table = record.table()
    expected = [[2 * share_of(PLANS[name], stage, group / 2) for group in range(3)] for stage in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(table[..., 0], torch.tensor(expected))
    torch.testing.assert_close(table.sum(-1), torch.full((3, 3), 2.0))


def test_each_sample_is_weighed_by_its_own_stage():
    plan = SharePlan((0.2, 0.8), (0.5, 0.4)).blend(make_pair(TinyBase("wan", 4), num_groups=3, scale=2.0).config)
    stages = torch.tensor([0.0, 0.25, 1.0])
    together = plan.weights(torch.zeros(3, 8), [], stages)
    assert together.shape == (3, 3, 2)
    for row, stage in enumerate(stages.tolist()):
        torch.testing.assert_close(together[row], plan.weights(torch.zeros(1, 8), [], stage)[0])


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
