"""Tables of what methods reach, and of what they gain over one of them, trial by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from .report import shown
from .summary import differences, place_of, summarise, with_references


def paired_table(results: Sequence[Mapping], measures: Mapping[str, str], against: str, omitted: Sequence[str] = ()) -> list[str]:
    """Means with intervals, and differences from the method `against`, as Markdown.

    Args:
        measures: heading by measure.
        omitted: methods that have no row.
    """
    gains = differences(results, list(measures), against)
    headings = [*measures.values(), *(f"minus `{against}`: {heading}" for heading in measures.values())]
    lines = [f"| method | trials | {' | '.join(headings)} |", "| --- |" + " ---: |" * (len(headings) + 1)]
    for summary in summarise(results):
        if summary.method in omitted:
            continue
        means = [summary.estimates[measure] for measure in measures]
        compared = [""] * len(measures) if summary.method == against else [shown(gains[summary.method][measure]) for measure in measures]
        count = max(value.count for value in means)
        lines.append(f"| `{summary.method}` | {count} | {' | '.join([*map(shown, means), *compared])} |")
    return lines


def pairs_table(results: Sequence[Mapping], measures: Sequence[str], methods: Sequence[str]) -> list[str]:
    """The measures of each figure with each motion, one behind the other, over its seeds, as Markdown."""
    scores: dict[tuple[str, str], dict[str, list[Mapping]]] = {}
    for result in with_references(results):
        scores.setdefault(place_of(result)[:2], {}).setdefault(result["method"], []).append(result["scores"])
    lines = [f"| | {' | '.join(f'`{method}`' for method in methods)} |", "| --- |" + " ---: |" * len(methods)]
    for (identity, motion), by_method in sorted(scores.items()):
        cells = [_values(by_method.get(method, ()), measures) for method in methods]
        lines.append(f"| {identity}, {motion} | {' | '.join(cells)} |")
    return lines


def _values(scores: Sequence[Mapping], measures: Sequence[str]) -> str:
    values = [[one[measure] for one in scores if one[measure] is not None] for measure in measures]
    return " / ".join(f"{fmean(some):.2f}".removeprefix("0") if some else "-" for some in values)
