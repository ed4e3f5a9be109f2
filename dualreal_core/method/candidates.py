"""Blends to be compared, from a text: presets, the dial of 'movement first', and curves drawn by hand."""

from __future__ import annotations

import re

from ..errors import InputError
from .curves import AXES, BlendCurves, parse_curves
from .pair import ROLES
from .presets import PRESETS, movement_first

MOST_EARLY = 1.4
"""Of the identity in noise with 'movement first': more than it has anywhere else."""
_DIAL = re.compile(r"movement first\s+([0-9.]+)")
_CURVES = re.compile(rf"({'|'.join(ROLES)})\s+({'|'.join(AXES)})\s.*", re.DOTALL)


def parse_candidates(text: str) -> dict[str, BlendCurves]:
    """Blends by name, one a line: a preset, 'movement first' and its identity in noise, or curves with `;` between their parts.

    A line may begin with a name of its own and `=`, as in `late = identity sigma 1:0 0:1.5; motion depth 0:1 1:0.5`. `#` begins a remark.

    Raises:
        InputError: a line is none of these, or two have one name.
    """
    found: dict[str, BlendCurves] = {}
    for line in text.splitlines():
        plain = line.partition("#")[0].strip()
        if not plain:
            continue
        name, is_named, rest = plain.partition("=")
        name, given = name.strip(), (rest if is_named else plain).strip()
        if not name or name in found:
            problem = "there twice" if name else "empty"
            raise InputError(f"The candidates hold {line.strip()!r}, whose name is {problem}: give it another.")
        found[name] = _blend(given, line.strip())
    return found


def _blend(given: str, line: str) -> BlendCurves:
    if given in PRESETS:
        return PRESETS[given]
    dial = _DIAL.fullmatch(given)
    if dial is not None:
        try:
            early = float(dial[1])
        except ValueError:
            early = -1.0
        if 0 <= early <= MOST_EARLY:
            return movement_first(early)
        raise InputError(f"The candidates hold {line!r}: the identity's weight in noise goes from 0 to {MOST_EARLY:g}.")
    if _CURVES.fullmatch(given):
        return parse_curves(given)
    raise InputError(
        f"The candidates hold {line!r}, which is no blend: write a preset ({', '.join(PRESETS)}), 'movement first 0.2', or curves as in "
        "'late = identity sigma 1:0.4 0:1.4; motion sigma 1:1.2 0:0.6'."
    )
