"""Guided sampling: seeds per row, and the pair on the prompt's rows only unless asked otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TEXT_DIM, TinyBase, fill, make_pair

from dualreal_core.method.attach import Attachment
from dualreal_core.sampling import default_sampling, sample


@pytest.fixture(scope="module", params=["cogvideox", "wan"])
def base(request) -> TinyBase:
    return TinyBase(request.param, 2)


def texts(count: int) -> list[torch.Tensor]:
    return list(torch.randn(count, 5, TEXT_DIM, generator=torch.Generator().manual_seed(7)))


class Recorder:
    """A blend of fixed weights; the attachment's final weights are read from the hook's state."""

    def __init__(self) -> None:
        self.attachment: Attachment | None = None
        self.seen: list[torch.Tensor] = []

    def weights(self, embedding, tokens, stage=None):
        self.seen.append(None if self.attachment.row_strengths is None else self.attachment.row_strengths.clone())
        return torch.ones(1, 1, 2)


@pytest.mark.parametrize("adapts_negative", [False, True])
def test_negative_rows(base, adapts_negative):
    pair, blend = fill(make_pair(base, num_groups=2)), Recorder()
    settings = replace(default_sampling(base), adapts_negative=adapts_negative)
    with Attachment(base.transformer, pair, blend) as attachment:
        blend.attachment = attachment
        sample(base, texts(2), texts(1)[0], settings, attachment)
        assert attachment.row_strengths is None
    expected = None if adapts_negative else [0.0, 0.0, 1.0, 1.0]
    assert [None if rows is None else rows.tolist() for rows in blend.seen] == [expected] * settings.num_steps


def test_settings_change_the_video(base):
    pair = fill(make_pair(base, num_groups=2))
    settings, videos = default_sampling(base), {}
    for name, adapts in (("plain", False), ("paper", True)):
        with Attachment(base.transformer, pair) as attachment:
            videos[name] = sample(base, texts(1), texts(1)[0] * 0, replace(settings, adapts_negative=adapts), attachment)
    assert not torch.equal(videos["plain"], videos["paper"])


def test_unguided_pair_always_acts(base):
    pair = fill(make_pair(base, num_groups=2))
    settings = replace(default_sampling(base), guidance_scale=1.0)
    plain = sample(base, texts(1), texts(1)[0], settings)
    with Attachment(base.transformer, pair) as attachment:
        assert not torch.equal(sample(base, texts(1), texts(1)[0], settings, attachment), plain)


def test_rows_start_from_their_own_seeds():
    base = TinyBase("wan", 2)
    settings = default_sampling(base)
    both = sample(base, texts(2), texts(1)[0], settings)
    second = sample(base, texts(2)[1:], texts(1)[0], replace(settings, seed=1))
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-4)
