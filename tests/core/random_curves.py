"""Texts of blend curves at random, right and wrong ones, with what `parse_curves` makes of them; for whatever else reads such texts."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from dualreal_core.errors import InputError
from dualreal_core.method.curves import AXES, MAX_WEIGHT, curve_at, parse_curves
from dualreal_core.method.pair import ROLES

MODULE = Path(__file__).parents[2] / "web" / "js" / "blend_editor" / "curves.js"
PLACES = [index / 16 for index in range(17)]
READ_ALL = """(texts, places) => texts.map(text => {
  try {
    const curves = parseCurves(text)
    const weights = SIDES.map(side => AXES.map(axis => places.map(place => weightAt(curves[side][axis], place))))
    return { weights, written: formatCurves(curves) }
  } catch (error) {
    if (!(error instanceof CurvesError)) throw error
    return null
  }
})"""
"""A function of the page's module: [{weights: [side][axis][place], written: text}, or null where it refuses]."""
SPOILS = (
    lambda text: text.replace("identity", "style"), lambda text: text.replace(":", " "), lambda text: text + " 0.5:-1",
    lambda text: text + "\n" + text, lambda text: text.replace("sigma", ""), lambda text: text + " 0.25:x", lambda text: text + " 0x1:1",
    lambda text: text + " 1.2:1", lambda text: text + " 0.5:1:2", lambda text: text + " 0.1:nan", lambda text: text + " 0.7:1 .7:2",
    lambda text: text + " 0.3:", lambda text: text + f" 0.333:{MAX_WEIGHT + 0.01}", lambda text: text + " 0.4:1,2",
)  # fmt: skip


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts in which lines, order, spelling of numbers, remarks and mistakes vary."""
    rng = random.Random(seed)
    return [_text(rng) for _ in range(count)]


def expected(text: str) -> dict | None:
    """What the core makes of a text, in the form of `READ_ALL`."""
    try:
        curves = parse_curves(text)
    except InputError:
        return None
    places = torch.tensor(PLACES)
    weights = [[curve_at(getattr(curves.side(role), axis), places).tolist() for axis in AXES] for role in ROLES]
    return {"weights": weights, "written": str(curves)}


def _text(rng: random.Random) -> str:
    named = rng.sample([(role, axis) for role in ROLES for axis in AXES], rng.randint(0, 4))
    lines = []
    for role, axis in named:
        places = rng.sample([*PLACES, rng.random(), rng.random()], rng.randint(1, 6))
        points = [f"{_number(rng, place)}:{_number(rng, rng.uniform(0, MAX_WEIGHT))}" for place in places]
        lines.append(f"{role}{rng.choice((' ', '  '))}{axis} {rng.choice((' ', '   ')).join(points)}")
        if rng.random() < 0.2:
            lines[-1] += "  # a remark"
        if rng.random() < 0.1:
            lines.append(rng.choice(("", "# alone", "   ")))
    text = rng.choice(("\n", ";", "\r\n")).join(lines)
    return rng.choice(SPOILS)(text) if rng.random() < 0.3 else text


def _number(rng: random.Random, number: float) -> str:
    written = rng.choice((f"{number:.3f}", f"{number:g}", repr(number), f"{number:.4e}"))
    return written.lstrip("0") if written.startswith("0.") and rng.random() < 0.3 else written
