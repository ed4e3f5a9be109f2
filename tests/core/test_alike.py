"""Photos that look almost like another are found as by comparing all pairs in full, at a small part of the work."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from test_training_report import outcome
from torch.utils._python_dispatch import TorchDispatchMode

from dualreal_core.dataset import PreparedItem
from dualreal_core.training import report
from dualreal_core.training.report import share_alike

SHAPE = (4, 1, 40, 56)
"""More values than a sketch has."""


def items(latents: list[torch.Tensor]) -> list[PreparedItem]:
    return [PreparedItem(one, torch.zeros(1, 1), None, None, str(index), str(index)) for index, one in enumerate(latents)]


def share_by_pairs(latents: list[torch.Tensor]) -> float:
    found = set()
    for (index, one), (other_index, other) in combinations(enumerate(latents), 2):
        if one.shape == other.shape and (one - other).norm() < 0.2 * ((one.norm() ** 2 + other.norm() ** 2) / 2) ** 0.5:
            found |= {index, other_index}
    return len(found) / len(latents)


def noise(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> list[torch.Tensor]:
    return list(torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)))


def twins(change: list[torch.Tensor], shape: tuple[int, ...] = SHAPE) -> list[torch.Tensor]:
    """Pairs that are .15 to .25 of their size apart, by one change each."""
    distances = torch.linspace(0.15, 0.25, len(change)).tolist()
    ones = noise(len(change), shape, seed=1)
    others = [one + distance * one.norm() / part.norm() * part for one, part, distance in zip(ones, change, distances, strict=True)]
    return [*ones, *others]


def patches(shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Noise in 6 x 6 cells, zero elsewhere."""
    empty = torch.zeros(shape)
    empty[..., 3:9, 3:9] = 1
    return [part * empty for part in noise(24, shape, seed=2)]


SETS = {
    "unlike": noise(12),
    "copies": [*noise(1) * 5, *noise(5, seed=3)],
    "a change everywhere": twins(noise(24, seed=2)),
    "a brighter picture": twins([torch.ones(SHAPE)] * 24),
    "a change at one place": twins(patches(SHAPE)),
    "a change at one place, of as many cells as a sketch has": twins(patches((4, 1, 64, 64)), (4, 1, 64, 64)),
    "small latents": twins(noise(24, (4, 1, 4, 6), seed=2), (4, 1, 4, 6)),
    **{
        f"all pairs {distance} apart": [noise(1)[0] + distance / 2**0.5 * part for part in noise(20, seed=4)]
        for distance in (0.18, 0.197, 0.203, 0.22)
    },
    "several shapes": [*noise(3), *noise(1), *noise(2, (4, 3, 8, 8)), *noise(1, (4, 3, 8, 8))],
    "nothing in them": [torch.zeros(SHAPE), torch.zeros(SHAPE), *noise(1)],
    "no numbers": [torch.full(SHAPE, torch.nan), torch.full(SHAPE, torch.inf), *noise(2), *noise(1)],
    "one": noise(1),
}


@pytest.mark.parametrize("block", [5, 256])
@pytest.mark.parametrize("name", SETS)
def test_the_same_is_found_as_by_comparing_all_pairs(monkeypatch, name, block):
    monkeypatch.setattr("dualreal_core.training.alike.BLOCK", block)
    assert share_alike(items(SETS[name])) == share_by_pairs(SETS[name])


class Work(TorchDispatchMode):
    """Counts the values that torch writes, and the most in one tensor."""

    num_values, most = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.num_values, self.most = self.num_values + result.numel(), max(self.most, result.numel())
        return result


@pytest.mark.parametrize("make", [noise, lambda count, shape: [noise(1, shape)[0]] * count], ids=["unlike", "alike"])
def test_the_work_grows_with_the_photos_and_not_with_their_pairs(make):
    num_photos, shape = 120, (4, 1, 60, 104)
    with Work() as work:
        share_alike(items(make(num_photos, shape)))
    num_values = torch.Size(shape).numel()
    made = num_photos * num_values
    assert work.num_values - made < 12 * num_photos * num_values < num_photos * (num_photos - 1) / 2 * num_values
    assert work.most <= made


def test_a_report_compares_the_photos_once(monkeypatch):
    calls, plain = [], report.share_alike
    monkeypatch.setattr(report, "share_alike", lambda given: calls.append(len(given)) or plain(given))
    run = outcome(items=items(noise(4)))
    run.lines()
    run.as_dict()
    assert calls == [4, 4], "once for each side"
