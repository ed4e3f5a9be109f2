"""Blend curves: independent weights of both sides over the noise level and depth, and their text form."""

from __future__ import annotations

import pytest
import torch
from tiny import TEXT_DIM, TinyBase, fill, make_pair

from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.blend import FixedBlend
from dualreal_core.method.curves import BlendCurves, SideCurves, curve_at, parse_curves
from dualreal_core.method.presets import PRESETS, movement_first
from dualreal_core.objective import FlowMatching, VPrediction
from dualreal_core.sampling import default_sampling, sample

DRAWN = "identity sigma 1:0.4 0.8:0.4 0.67:1.4 0:1.4; motion sigma 1:1.2 0:0.6; motion depth 0:1 1:0.5"


def weights(curves, level, num_groups=3, scale=2.0):
    config = make_pair(TinyBase("wan", num_blocks=3), has_controller=False, num_groups=num_groups, scale=scale).config
    blend = curves.blend(config)
    return blend.weights(torch.zeros(1, 1), [], blend.scheduled(None, level))


def test_both_sides_follow_their_own_curves():
    found = weights(parse_curves(DRAWN), 0.9)
    torch.testing.assert_close(found[0, :, 0], torch.full((3,), 0.4))
    torch.testing.assert_close(found[0, :, 1], 1.14 * torch.tensor([1.0, 0.75, 0.5]))
    assert weights(parse_curves(DRAWN), 0.9, scale=0.2)[0, 0, 0] == pytest.approx(0.04)  # in units of an even weight


def test_rows_of_one_batch_may_have_different_noise():
    curves = parse_curves(DRAWN)
    both = weights(curves, torch.tensor([0.95, 0.1]))
    torch.testing.assert_close(both, torch.cat([weights(curves, 0.95), weights(curves, 0.1)]))


def test_a_curve_is_straight_between_points_and_level_outside():
    points = ((0.25, 1.0), (0.75, 2.0))
    torch.testing.assert_close(curve_at(points, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])), torch.tensor([1.0, 1.0, 1.5, 2.0, 2.0]))
    torch.testing.assert_close(curve_at(((0.3, 0.7),), torch.tensor([0.0, 1.0])), torch.tensor([0.7, 0.7]))


@pytest.mark.parametrize("curves", [*PRESETS.values(), movement_first(0.0), parse_curves(DRAWN)], ids=str)
def test_text_form_is_read_back(curves):
    assert parse_curves(str(curves)) == curves


def test_text_may_be_empty_or_hold_remarks():
    assert parse_curves("") == parse_curves("# nothing\n\n") == BlendCurves()
    assert parse_curves("identity depth 1:2 0:1  # rising") == BlendCurves(SideCurves(depth=((0.0, 1.0), (1.0, 2.0))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("identity 1:1", "no line of them"),
        ("style sigma 1:1", "no line of them"),
        ("identity sigma 1", "no point"),
        ("identity sigma 1:x", "no point"),
        ("identity sigma 1:nan", "weights from 0 to 4"),
        ("identity sigma 1.5:1", "places go from 0 to 1"),
        ("identity sigma 1:-1", "weights from 0 to 4"),
        ("identity sigma 0.5:1 0.5:2", "two points at 0.5"),
        ("identity sigma 1:1\nidentity sigma 0:1", "twice"),
    ],
)
def test_wrong_text_is_named(text, said):
    with pytest.raises(InputError, match=said):
        parse_curves(text)


def test_an_even_curve_is_an_even_blend():
    base = TinyBase("wan")
    pair = fill(make_pair(base, has_controller=False, scale=2.0))
    text = torch.randn(5, TEXT_DIM, generator=torch.Generator().manual_seed(7))
    settings = default_sampling(base)
    outcomes = []
    for blend in (FixedBlend(1.0, 1.0), BlendCurves().blend(pair.config), movement_first().blend(pair.config)):
        with Attachment(base.transformer, pair, blend) as attachment:
            outcomes.append(sample(base, [text], text, settings, attachment))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=0, atol=0)
    assert not torch.equal(outcomes[0], outcomes[2])


@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
def test_the_hand_over_lies_at_one_noise_whatever_the_shift(shift):
    objective = FlowMatching(shift=shift)
    for sigma, identity in ((0.9, 0.4), (0.818, 0.4), (0.667, 1.2), (0.4, 1.0), (0.2, 1.0)):
        level = objective.noise_level(torch.tensor([1000 * sigma]))
        assert weights(movement_first(), level)[0, 0, 0] == pytest.approx(identity, abs=1e-5)


def test_noise_level_of_v_prediction():
    objective = VPrediction((1.0, 0.75, 0.0))
    torch.testing.assert_close(objective.noise_level(torch.tensor([0, 1, 2])), torch.tensor([0.0, 0.5, 1.0]))
