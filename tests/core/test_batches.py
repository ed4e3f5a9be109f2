"""Batches: every item once per pass, all of one shape."""

from __future__ import annotations

import pytest
from tiny import TinyBase, make_items, make_pair

from dualreal_core.training.settings import TrainSettings
from dualreal_core.training.state import RunState


@pytest.mark.parametrize(("count", "batch"), [(5, 2), (4, 4), (3, 7), (1, 3)])
def test_every_item_comes_once_per_pass(count, batch):
    pair = make_pair(TinyBase("wan", 2), num_groups=2)
    state = RunState.start(pair, TrainSettings())
    items = make_items("motion", count)
    orders = []
    for _ in range(4):
        drawn = [state.next_batch("motion", items, batch) for _ in range(-(-count // batch))]
        assert not state.queues["motion"] and all(len(one) == batch for one in drawn)
        sources = [item.source for one in drawn for item in one]
        assert set(sources) == {item.source for item in items}
        orders.append(sources)
    assert count == 1 or len({tuple(order) for order in orders}) > 1


def test_batches_hold_one_shape():
    state = RunState.start(make_pair(TinyBase("wan", 2), num_groups=2), TrainSettings())
    items = make_items("motion", 5) + make_items("identity", 4)
    for _ in range(10):
        assert len({item.latents.shape for item in state.next_batch("motion", items, 3)}) == 1
