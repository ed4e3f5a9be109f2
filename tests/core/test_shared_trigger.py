"""What the captions of photos tell of their trigger."""

from __future__ import annotations

import pytest

from dualreal_core.gating.shared_trigger import shared_trigger


@pytest.mark.parametrize(
    ("captions", "trigger"),
    [
        (["a photo of sks dog on grass", "sks dog, sitting in snow"], "sks"),
        (["a figure * on sand", "a figure * on mint"], "*"),
        (["Ohwx Blorp in a park", "a portrait of ohwx blorp"], "ohwx blorp"),
        (["a photo of zwx", "a photo of a dog"], ""),
        (["a dog in a park", "a dog on grass"], ""),
        ([], ""),
    ],
)
def test_it_is_what_all_hold_and_other_prompts_do_not(captions: list[str], trigger: str) -> None:
    assert shared_trigger(captions) == trigger
