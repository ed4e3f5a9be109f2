"""Cells to figures: retention and leakage against the reference rows, means with intervals, and what ours gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from ..toyworld.trial import retention
from .intervals import Estimate, Place, estimate, estimate_again
from .rows import REFERENCES, ROWS, find_row

ROLES = ("identity", "motion")
NUM_SEEDS_AGAIN = 2
"""Seeds of a run that repeats a row."""


@dataclass(frozen=True)
class Summary:
    """One row over all its cells: an estimate for every measure, and where it lands with `NUM_SEEDS_AGAIN` other seeds."""

    row: str
    title: str
    what: str
    settings: dict[str, float]
    estimates: dict[str, Estimate]
    again: dict[str, Estimate]

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "title": self.title,
            "what": self.what,
            "settings": self.settings,
            **{name: asdict(value) for name, value in self.estimates.items()},
            "again": {name: asdict(value) for name, value in self.again.items()},
        }


def with_references(results: Sequence[Mapping]) -> list[dict]:
    """The results, each with what only holds against a reference row of the same figure, motion and seed.

    retention_identity, retention_motion: None where the reference is missing or no better than the base.
    leak_figure_excess: likeness of the figure above the base's where another subject is asked for.
    """
    scores = {(result["row"], *place_of(result)): result["scores"] for result in results}
    completed = []
    for result in results:
        own, place = result["scores"], place_of(result)
        base = scores.get(("base", *place))
        derived: dict[str, float | None] = {}
        for role in ROLES:
            single = scores.get((f"{role}-only", *place))
            derived[f"retention_{role}"] = None if base is None or single is None else retention(own[role], base[role], single[role])
        derived["leak_figure_excess"] = None if base is None else own["leak_figure"] - base["leak_figure"]
        completed.append({**result, "scores": {**own, **derived}})
    return completed


def comparable(results: Sequence[Mapping]) -> list[Mapping]:
    """The results at places that every row has, so that means are over the same figures, motions and seeds."""
    places: dict[str, set[Place]] = {}
    for result in results:
        places.setdefault(result["row"], set()).add(place_of(result))
    common = set.intersection(*places.values()) if places else set()
    return [result for result in results if place_of(result) in common]


def summarise(results: Sequence[Mapping]) -> list[Summary]:
    """One summary per row that has cells, in the order of the table; variants follow their row."""
    completed = with_references(results)
    summaries = []
    for name in _ordered({result["row"] for result in completed}):
        cells = [result for result in completed if result["row"] == name]
        measures = cells[0]["scores"]
        values = {measure: {place_of(cell): cell["scores"][measure] for cell in cells} for measure in measures}
        estimates = {measure: estimate(of_places) for measure, of_places in values.items()}
        again = {measure: estimate_again(of_places, NUM_SEEDS_AGAIN) for measure, of_places in values.items()}
        row = find_row(name)
        summaries.append(Summary(name, row.title, row.what, cells[0]["made_from"]["settings"], estimates, again))
    return summaries


def advantages(results: Sequence[Mapping], measures: Sequence[str], winner: str = "ours") -> dict[str, dict[str, Estimate]]:
    """By how much the winner is above each other row, cell by cell: what figures, motions and seeds have in common drops out.

    Cells that one of the two lacks, or where a measure is undefined, are left out. Reference rows are not compared.
    """
    completed = with_references(results)
    scores = {(result["row"], *place_of(result)): result["scores"] for result in completed}
    rows = [name for name in _ordered({result["row"] for result in completed}) if name not in (*REFERENCES, winner)]
    places = [place_of(result) for result in completed if result["row"] == winner]

    def gains(row: str, measure: str) -> dict[Place, float | None]:
        pairs = {place: (scores[(winner, *place)][measure], scores[(row, *place)][measure]) for place in places if (row, *place) in scores}
        return {place: None if None in pair else pair[0] - pair[1] for place, pair in pairs.items()}

    return {row: {measure: estimate(gains(row, measure)) for measure in measures} for row in rows} if places else {}


def best(summaries: Sequence[Summary], measure: str) -> Summary | None:
    """The row with the highest mean, reference rows aside."""
    ranked = [one for one in summaries if one.row not in REFERENCES and one.estimates[measure].mean is not None]
    return max(ranked, key=lambda summary: summary.estimates[measure].mean, default=None)


def margin(summaries: Sequence[Summary], measure: str) -> tuple[float, list[str]] | None:
    """By how many percent ours exceeds the mean of the published-style rows that are there, and those rows' names."""
    means = {summary.row: summary.estimates[measure].mean for summary in summaries}
    baselines = [name for name in means if name in ROWS and ROWS[name].is_published_style]
    if "ours" not in means or not baselines:
        return None
    mean = fmean(means[name] for name in baselines)
    return None if mean <= 0 else (100 * (means["ours"] / mean - 1), baselines)


def place_of(result: Mapping) -> Place:
    """Figure, motion and seed of a result."""
    return result["identity"], result["motion"], result["seed"]


def _ordered(rows: set[str]) -> list[str]:
    names = list(ROWS)
    return sorted(rows, key=lambda name: (names.index(name.partition("[")[0]), name))
