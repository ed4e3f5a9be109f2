"""The two-LoRA benchmark's table: what each way to join keeps, trial by trial against another, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ..method.pair import ROLES
from .intervals import Place, estimate
from .registry import TWO_LORA_ROWS, find_method
from .report import shown
from .summary import place_of, with_references

KEPT = tuple(f"retention_{role}" for role in ROLES)
DIALLED = "curves-alone"
ORACLE = "best dial of each pair"
"""Chosen by the very scores that it is shown with: an upper bound of what a choice of the dial can bring."""
Cells = dict[str, dict[Place, dict[str, float]]]
"""Retentions and seconds by method and place."""


def cells_of(results: Sequence[Mapping]) -> Cells:
    """Retentions of every way to join, and the seconds that it takes beyond training both sides; with the oracle over the dial."""
    cells: Cells = {}
    trained = {place_of(result): result["seconds"]["training"] for result in results if result["method"] == "sum"}
    for result in with_references(results):
        kept, place = {name: result["scores"][name] for name in KEPT}, place_of(result)
        if len(find_method(result["method"]).trainers) < 2 or place not in trained or None in kept.values():
            continue
        seconds = max(result["seconds"]["training"] - trained[place], 0.0) + result["seconds"].get("joining", 0.0)
        cells.setdefault(result["method"], {})[place] = {**kept, "seconds": seconds}
    dials = {name: scores for name, scores in cells.items() if name.partition("[")[0] == DIALLED}
    if len(dials) > 1:
        common = set.intersection(*map(set, dials.values()))
        cells[ORACLE] = {place: max((scores[place] for scores in dials.values()), key=_total) for place in common}
    return cells


def in_order(cells: Cells) -> Cells:
    """Methods as the registry lists them, each followed by its variants, and the oracle at the end."""
    names = [*TWO_LORA_ROWS, ORACLE]
    return dict(sorted(cells.items(), key=lambda one: (names.index(one[0].partition("[")[0]), one[0])))


def table(cells: Cells, against: str) -> list[str]:
    """Means with intervals, and differences from the method `against` trial by trial, as Markdown."""
    heading = f"| method | trials | identity kept | motion kept | minus `{against}`: identity | motion | s per pair |"
    lines, other = [heading, "| --- |" + " ---: |" * 6], cells.get(against, {})
    for name, scores in in_order(cells).items():
        means = [estimate({place: one[kept] for place, one in scores.items()}) for kept in KEPT]
        gains = [estimate({place: one[kept] - other[place][kept] for place, one in scores.items() if place in other}) for kept in KEPT]
        compared = ["", ""] if name == against else map(shown, gains)
        seconds = fmean(one["seconds"] for one in scores.values())
        lines.append(f"| `{name}` | {len(scores)} | {' | '.join(map(shown, means))} | {' | '.join(compared)} | {seconds:.0f} |")
    return lines


def _total(cell: Mapping[str, float]) -> float:
    return sum(cell[name] for name in KEPT)
