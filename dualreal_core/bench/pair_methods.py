"""Ours as it was before single pairs were looked at, and with a share schedule that is chosen for each pair."""

from __future__ import annotations

from .methods import Method
from .recipes import ours

PAIR_METHODS = (
    Method(
        "ours-before",
        "DualReal, recipe of before",
        "ours with two fifths of the steps for the motion, as many photos in a batch as clips, preservation on whole batches of "
        "clips, and no prompt gate",
        ("joint",),
        ours,
        train={"motion_ratio": 0.4, "identity_batch": 4, "preservation_batch": None},
    ),
    Method(
        "ours-previewed",
        "DualReal, schedule by previews",
        "ours with the early shares, of four, that a few short previews of the pair favour",
        ("gated",),
        ours,
        joiner="previewed",
    ),
)
