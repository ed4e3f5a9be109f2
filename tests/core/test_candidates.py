"""Lists of blends to be compared, as text."""

from __future__ import annotations

import pytest

from dualreal_core.errors import InputError
from dualreal_core.method.candidates import parse_candidates
from dualreal_core.method.curves import BlendCurves, SideCurves
from dualreal_core.method.presets import PRESETS, movement_first


def test_presets_the_dial_and_curves_are_read():
    found = parse_candidates(
        "movement first 0\nmovement first .8 # wide figures\n\neven\nidentity late\n"
        "mine = identity sigma 1:0.5 0:1.5; motion depth 0:2 1:1\nidentity depth 0:1 1:2\nsame = movement first"
    )
    own = BlendCurves(SideCurves(((0.0, 1.5), (1.0, 0.5))), SideCurves(depth=((0.0, 2.0), (1.0, 1.0))))
    assert found["movement first 0"] == movement_first(0.0) and found["movement first .8"] == movement_first(0.8)
    assert found["even"] == BlendCurves() and found["identity late"] == PRESETS["identity late"]
    assert found["mine"] == own and found["same"] == PRESETS["movement first"]
    assert found["identity depth 0:1 1:2"].identity.depth == ((0.0, 1.0), (1.0, 2.0)) and len(found) == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("motion first", "no blend"),
        ("movement first 2", "from 0 to 1.4"),
        ("movement first 0.1.2", "from 0 to 1.4"),
        ("even\neven", "there twice"),
        ("= even", "empty"),
        ("identity sigma 1", "no point"),
    ],
)
def test_what_is_none_is_named(text, said):
    with pytest.raises(InputError, match=said):
        parse_candidates(text)


def test_an_empty_text_has_none():
    assert parse_candidates(" \n# nothing\n") == {}
