"""Fused updates equal the sum of the adapters, follow their weights, and leave out what has no weight."""

from __future__ import annotations

import pytest
import torch
from tiny import CONDITION_DIM, KINDS, TinyBase, condition, fill, make_pair, model_inputs

from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import iterate_sides

UNEQUAL = {
    "identity_bottleneck_dim": 3, "motion_bottleneck_dim": 11,
    "identity_rank": 5, "motion_rank": 2,
    "identity_alpha": 2.0, "motion_alpha": 9.0,
}  # fmt: skip


def outputs(base: TinyBase, pair, with_condition: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """(fused, plain) outputs: the same call without and with gradients."""
    with Attachment(base.transformer, pair) as attachment:
        attachment.condition = condition() if with_condition else None
        attachment.strengths = {"identity": 0.7, "motion": 1.3}
        attachment.row_strengths = (1.0, 0.5)
        with torch.no_grad():
            fused = base.predict(*model_inputs())
        plain = base.predict(*model_inputs()).detach()
    return fused, plain


@pytest.mark.parametrize("with_condition", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["wan", "cogvideox"])
def test_fused_equals_plain(family, kind, with_condition):
    base = TinyBase(family, 3)
    one_sided, conditioned = {"identity_kind": "none", "learned_range": 0.0}, {"identity_condition_dim": CONDITION_DIM}
    one_skip = {"identity_kind": "bottleneck-skip", "motion_kind": "bottleneck"}
    for settings in ({}, one_sided, conditioned, {"alpha": 7.0}, UNEQUAL, one_skip):
        pair = fill(make_pair(base, kind, **settings))
        fused, plain = outputs(base, pair, with_condition)
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


def test_changed_weights_are_seen():
    base = TinyBase("wan", 3)
    pair = fill(make_pair(base, "lora"))
    with Attachment(base.transformer, pair), torch.no_grad():
        before = base.predict(*model_inputs())
        for *_, adapter in iterate_sides(pair):
            adapter.up.weight.mul_(2)
        after = base.predict(*model_inputs())
    assert not torch.allclose(before, after)
    fused, plain = outputs(base, pair)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)
