"""Guided sampling: seeds per row, and the pair on the prompt's rows only unless asked otherwise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from tiny import TEXT_DIM, TinyBase, fill, make_pair

from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import BlendRecord
from dualreal_core.objective import FlowMatching
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
        self.seen: list[tuple[float, ...] | None] = []

    def scheduled(self, stage, noise_level):
        return torch.ones(1, 2)

    def weights(self, embedding, tokens, scheduled):
        self.seen.append(self.attachment.row_strengths)
        return scheduled[:, None]


@pytest.mark.parametrize("adapts_negative", [False, True])
def test_negative_rows(base, adapts_negative):
    pair, blend = fill(make_pair(base, num_groups=2)), Recorder()
    settings = replace(default_sampling(base), adapts_negative=adapts_negative)
    with Attachment(base.transformer, pair, blend) as attachment:
        blend.attachment = attachment
        sample(base, texts(2), texts(1)[0], settings, attachment)
        assert attachment.row_strengths is None
    expected = None if adapts_negative else (0.0, 0.0, 1.0, 1.0)
    assert blend.seen == [expected] * settings.num_steps


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


@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_the_stage_follows_from_the_timestep_alone(family, num_steps):
    """Not from how many steps there are before and after: any part of a run then blends as the whole does."""
    base, record, timesteps = TinyBase(family, 2), BlendRecord(), []
    pair, settings = fill(make_pair(base, num_groups=2)), replace(default_sampling(base), num_steps=num_steps)
    with Attachment(base.transformer, pair) as attachment:
        attachment.record = record
        base.transformer.register_forward_pre_hook(lambda module, args, inputs: timesteps.append(inputs["timestep"][:1]), with_kwargs=True)
        sample(base, texts(1), texts(1)[0], settings, attachment)
    assert record.stages == pytest.approx(base.objective.stage(torch.cat(timesteps)).tolist())


@pytest.mark.parametrize("cuts", [(2,), (1, 3)], ids=["two parts", "three parts"])
@pytest.mark.parametrize("shift", [1.0, 12.0])
def test_a_run_in_parts_is_the_whole_run(shift, cuts):
    """Bit for bit, latents and weights, with a pair whose shares change over denoising."""
    base, even = TinyBase("wan", 2), [1.0, 0.75, 0.5, 0.25, 0.0]
    base.objective, sigmas = FlowMatching(shift), [shift * sigma / (1 + (shift - 1) * sigma) for sigma in even]

    def run(*cuts: int) -> tuple[torch.Tensor, BlendRecord]:
        pair, record, latents = fill(make_pair(base, num_groups=2, share_schedule=(0.1, 0.9))), BlendRecord(), None
        with Attachment(base.transformer, pair) as attachment:
            attachment.record = record
            for start, end in pairwise((0, *cuts, 4)):
                base.denoise = partial(euler, sigmas[start : end + 1], latents)
                latents = sample(base, texts(1), texts(1)[0], default_sampling(base), attachment)
        return latents, record

    (whole, used), (parts, used_in_parts) = run(), run(*cuts)
    assert torch.equal(whole, parts) and torch.equal(used.table(), used_in_parts.table())
    assert used.stages == pytest.approx([0.0, 0.25, 0.5, 0.75]) and used.table().std(0).min() > 0


def euler(sigmas, given, model, noise, num_steps, generator, progress=None) -> torch.Tensor:
    """The part of a run that goes through these sigmas, from latents (B, C, f, h, w) that are given, or from noise."""
    latents = noise if given is None else given
    for sigma, following in pairwise(sigmas):
        latents = latents + (following - sigma) * model(latents, torch.tensor(1000 * sigma))
    return latents
