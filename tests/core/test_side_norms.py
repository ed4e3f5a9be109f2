"""Norms of a side by block, their bars, and pairs that share their weights."""

from __future__ import annotations

import pytest
import torch
from tiny import wan

from dualreal_core.method.from_lora import LinearUpdate, one_sided_pair
from dualreal_core.method.placement import placed, sharing_weights
from dualreal_core.method.side_norms import norms_by_block
from dualreal_core.plots.depth_bars import depth_bars
from dualreal_core.plots.typography import ROLE_COLOURS


def test_norms_are_those_of_the_updates_of_each_block():
    base, generator = wan(num_blocks=3), torch.Generator().manual_seed(0)
    layers = {"blocks.0.attn1.to_q": 2, "blocks.0.attn2.to_v": 3, "blocks.1.ffn.net.2": 1}
    updates, squares = [], [0.0] * len(base.blocks)
    for path, rank in layers.items():
        rows, columns = base.get_submodule(path).weight.shape
        down, up = torch.randn(rank, columns, generator=generator), torch.randn(rows, rank, generator=generator)
        updates.append(LinearUpdate(path, down, up))
        squares[int(path.split(".")[1])] += float((up @ down).square().sum())
    pair = one_sided_pair(base, "motion", updates)
    assert norms_by_block(pair, "motion") == pytest.approx([square**0.5 for square in squares])
    assert norms_by_block(pair, "identity") == [0.0] * len(base.blocks)


def test_bars_are_as_high_as_the_norms():
    image = depth_bars({"identity": [1.0, 0.0, 2.0], "motion": [0.0, 0.5, 0.0]}, "Norms")
    counts = {colour: number for number, colour in image.getcolors(maxcolors=10**6)}
    assert counts[ROLE_COLOURS["identity"]] > 5 * counts[ROLE_COLOURS["motion"]] > 0
    with pytest.raises(ValueError, match="as many blocks"):
        depth_bars({"identity": [1.0], "motion": [1.0, 2.0]}, "Norms")


def test_a_pair_that_shares_weights_is_moved_alone():
    base = wan(num_blocks=3)
    linear = base.blocks[0].attn1.to_q
    update = LinearUpdate("blocks.0.attn1.to_q", torch.ones(1, linear.in_features), torch.ones(linear.out_features, 1))
    pair = one_sided_pair(base, "identity", [update])
    other = sharing_weights(pair)
    mine, theirs = next(pair.parameters()), next(other.parameters())
    assert mine is not theirs and mine.data_ptr() == theirs.data_ptr() and not theirs.requires_grad
    other.to(torch.bfloat16)
    assert mine.dtype == torch.float32 and next(placed(pair, torch.device("cpu")).parameters()).data_ptr() != mine.data_ptr()
