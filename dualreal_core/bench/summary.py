"""From results to figures: retention and leakage against the references, means with intervals, and what ours gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from ..method.pair import ROLES
from ..toyworld.trial import retention
from .intervals import Estimate, Place, estimate, prediction
from .registry import BASE, METHODS, REFERENCES, find_method
from .two_loras import TWO_LORA_METHODS

NUM_SEEDS_AGAIN = 2
"""Seeds of a benchmark that repeats a method."""
ABOVE_BASE = {
    "leak_figure_excess": "leak_figure",
    "untriggered_figure_excess": "untriggered_figure",
    "neither_look_change": "neither_look",
    "neither_motion_change": "neither_motion",
}
"""What is shown of a measure above the base's own."""
Scores = dict[Place, dict[str, float | None]]


@dataclass(frozen=True)
class Summary:
    """One method over all its results: an estimate of every measure, and where it lands with `NUM_SEEDS_AGAIN` other seeds."""

    method: str
    title: str
    what: str
    settings: Mapping[str, float]
    estimates: dict[str, Estimate]
    again: dict[str, Estimate]

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "title": self.title,
            "what": self.what,
            "settings": dict(self.settings),
            **{name: asdict(value) for name, value in self.estimates.items()},
            "again": {name: asdict(value) for name, value in self.again.items()},
        }


def with_references(results: Sequence[Mapping]) -> list[dict]:
    """The results, each with what only holds against a reference of the same figure, motion and seed.

    retention_identity, retention_motion: None where the reference is missing or no better than the base.
    leak_figure_excess, untriggered_figure_excess: likeness of the figure above the base's where another subject is asked for, and
        where a figure without the trigger is.
    known_motions_kept: score of known motions over the base's.
    neither_look_change, neither_motion_change: what a subject and a motion that neither side is asked for gain over the base's.
    """
    scores = {(result["method"], *place_of(result)): result["scores"] for result in results}
    completed = []
    for result in results:
        own, place = result["scores"], place_of(result)
        base = scores.get((BASE, *place))
        derived: dict[str, float | None] = {}
        for role in ROLES:
            single = scores.get((f"{role}-only", *place))
            derived[f"retention_{role}"] = None if base is None or single is None else retention(own[role], base[role], single[role])
        for name, measure in ABOVE_BASE.items():
            derived[name] = own[measure] - base[measure] if base is not None and measure in own else None
        is_known = base is not None and "known_motion_motion" in own and base["known_motion_motion"] > 0
        derived["known_motions_kept"] = own["known_motion_motion"] / base["known_motion_motion"] if is_known else None
        completed.append({**result, "scores": {**own, **derived}})
    return completed


def comparable(results: Sequence[Mapping]) -> list[Mapping]:
    """The results at places that every method has, so that means are over the same figures, motions and seeds."""
    places: dict[str, set[Place]] = {}
    for result in results:
        places.setdefault(result["method"], set()).add(place_of(result))
    common = set.intersection(*places.values()) if places else set()
    return [result for result in results if place_of(result) in common]


def summarise(results: Sequence[Mapping]) -> list[Summary]:
    """One summary per method that has results, in the order of the tables of methods; variants follow their method.

    A measure that a method was not asked for has no value.
    """
    summaries = []
    by_method = _by_method(results)
    measures = list(dict.fromkeys(measure for scores in by_method.values() for of_place in scores.values() for measure in of_place))
    for name, scores in by_method.items():
        values = {measure: {place: of_place.get(measure) for place, of_place in scores.items()} for measure in measures}
        estimates = {measure: estimate(by_place) for measure, by_place in values.items()}
        again = {measure: prediction(by_place, NUM_SEEDS_AGAIN) for measure, by_place in values.items()}
        method = find_method(name)
        summaries.append(Summary(name, method.title, method.what, method.settings, estimates, again))
    return summaries


def advantages(results: Sequence[Mapping], measures: Sequence[str], method: str = "ours") -> dict[str, dict[str, Estimate]]:
    """By how much a method is above each other one, trial by trial; references are not compared. See `differences`."""
    return {
        name: {measure: _negated(value) for measure, value in values.items()}
        for name, values in differences(results, measures, method).items()
        if name not in REFERENCES
    }


def differences(results: Sequence[Mapping], measures: Sequence[str], against: str) -> dict[str, dict[str, Estimate]]:
    """By how much each other method is above one, trial by trial: what figures, motions and seeds have in common drops out.

    Trials that one of the two lacks, or where a measure is undefined, are left out.
    """
    others = _by_method(results)
    its = others.pop(against, {})

    def gains(theirs: Scores, measure: str) -> dict[Place, float | None]:
        both = {place: (theirs[place].get(measure), its[place].get(measure)) for place in its if place in theirs}
        return {place: None if None in values else values[0] - values[1] for place, values in both.items()}

    return {name: {measure: estimate(gains(scores, measure)) for measure in measures} for name, scores in others.items() if its}


def best(summaries: Sequence[Summary], measure: str) -> Summary | None:
    """The method with the highest mean, references aside."""
    ranked = [one for one in summaries if one.method not in REFERENCES and one.estimates[measure].mean is not None]
    return max(ranked, key=lambda summary: summary.estimates[measure].mean, default=None)


def margin(summaries: Sequence[Summary], measure: str) -> tuple[float, list[str]] | None:
    """By how many percent ours exceeds the mean of the baselines that are there, and those methods' names."""
    means = {summary.method: summary.estimates[measure].mean for summary in summaries}
    baselines = [name for name in means if name in METHODS and METHODS[name].is_baseline]
    if "ours" not in means or not baselines:
        return None
    mean = fmean(means[name] for name in baselines)
    return None if mean <= 0 else (100 * (means["ours"] / mean - 1), baselines)


def place_of(result: Mapping) -> Place:
    """Figure, motion and seed of a result."""
    return result["identity"], result["motion"], result["seed"]


def _by_method(results: Sequence[Mapping]) -> dict[str, Scores]:
    """Scores, with those against the references, in the order of `METHODS`; variants follow their method."""
    names, found = [*METHODS, *TWO_LORA_METHODS], {}
    for result in with_references(results):
        found.setdefault(result["method"], {})[place_of(result)] = result["scores"]
    return dict(sorted(found.items(), key=lambda one: (names.index(one[0].partition("[")[0]), one[0])))


def _negated(value: Estimate) -> Estimate:
    low, high = (None if end is None else -end for end in (value.high, value.low))
    return Estimate(None if value.mean is None else -value.mean, low, high, value.count)
