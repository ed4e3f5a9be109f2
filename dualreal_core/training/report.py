"""What limits a result, in plain sentences: every one rests on a number and a threshold of the table below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..method.pair import ROLES, Role
from .alike import share_alike
from .scores import Evaluation, SideScores
from .stopping import best_of
from .validation import NOUNS, Split


@dataclass(frozen=True)
class Rule:
    """A limit, found where `measure` lies beyond `threshold`.

    Attributes:
        sentence, advice: templates; they may name {value}, {threshold}, {noun}, {where} and {step}.
        roles: sides it is looked for at.
        is_lower: the measure must lie below the threshold instead of above.
    """

    name: str
    measure: str
    threshold: float
    sentence: str
    advice: str
    roles: tuple[Role, ...] = ROLES
    is_lower: bool = False


RULES = (
    Rule(
        "too few", "num_files", 4,
        "There are only {value:.0f} {noun} (fewer than {threshold:.0f}).",
        "Add {noun} that differ in everything but what is to be learned.", is_lower=True,
    ),
    Rule(
        "near-identical", "alike", 0.3,
        "{value:.0%} of the {noun} look almost like another one (more than {threshold:.0%}).",
        "Replace them by other angles, places and lights.",
    ),
    Rule(
        "not learned", "unlearned", 0.95,
        "The {role} is hardly learned: this side alone leaves {value:.0%} of the base's loss on the {where} (more than {threshold:.0%}).",
        "Train more steps, at a higher rate, or with a larger rank; check that the captions name what the {noun} show.",
    ),
    Rule(
        "learned by heart", "gap", 0.2,
        "The {role} is learned by heart: of the base's loss, {value:.0%} more is left on the {where} than on those trained on "
        "(more than {threshold:.0%}).",
        "Add more varied {noun}; train fewer steps or with a smaller rank if sampled videos repeat places or movements of the {noun}.",
    ),
    Rule(
        "overfitted", "rise", 0.03,
        "After step {step} the loss on the {where} rose by {value:.0%} of the base's while that on the others fell "
        "(more than {threshold:.0%}).",
        "Compare videos sampled before and after it: if they got worse too, train fewer steps or keep the best pair.",
    ),
    Rule(
        "unfinished", "late_gain", 0.02,
        "The {role} was still improving: its last evaluation gained {value:.1%} of the base's loss (more than {threshold:.0%}).",
        "Train more steps.",
    ),
    Rule(
        "acts without its trigger", "leakage", 0.9,
        "The identity side leaks: without its trigger, on the clips, it changes the prediction {value:.2f} times as much as on its own "
        "photos (more than {threshold:.2f}).",
        "Name the subject in every photo's caption by the trigger, and all else in plain words; raise preservation_ratio.",
        roles=("identity",),
    ),
    Rule(
        "takes appearance", "leakage", 0.9,
        "The motion side leaks: on the photos, which do not show the motion, it changes the prediction {value:.2f} times as much as on "
        "its own clips (more than {threshold:.2f}), so it has taken on what the clips look like.",
        "Use clips of several subjects and places, and name these in the captions.",
        roles=("motion",),
    ),
    Rule(
        "disturbed", "interference", 0.5,
        "The motion side disturbs the identity: with both on, the loss on the {where} is higher by {value:.0%} of the base's "
        "(more than {threshold:.0%}).",
        "Lower the strength of the motion side, train it fewer steps, or use clips of more subjects.",
        roles=("identity",),
    ),
    Rule(
        "stiffened", "interference", 0.1,
        "The identity side disturbs the motion: with both on, the loss on the {where} is higher by {value:.0%} of the base's "
        "(more than {threshold:.0%}).",
        "Raise preservation_ratio, or lower the strength of the identity side.",
        roles=("motion",),
    ),
)  # fmt: skip
"""Thresholds are judgements. For scale, on training data: a pair that fuses well on the embedded base has (identity/motion)
`unlearned` 0.25 to 0.55/0.1 to 0.15, `leakage` 0.3 to 0.45/0.4 to 0.5 and `interference` 0.15 to 0.4/0.01; two sides trained apart,
whose motion suffers, `leakage` 1/0.4 to 0.6 and `interference` 0.15 to 0.25/0.15 to 0.2; an untrained pair 1, 0 and 0."""


@dataclass(frozen=True)
class Limit:
    """One thing found. `measure` and `threshold` are what the sentence rests on."""

    name: str
    role: Role
    measure: str
    value: float
    threshold: float
    sentence: str
    advice: str


@dataclass(frozen=True)
class Outcome:
    """A run at its end.

    Attributes:
        step: optimizer steps done, of `steps`.
        kept: the evaluation of the pair that is the result.
    """

    step: int
    steps: int
    kept: Evaluation
    evaluations: Sequence[Evaluation]
    splits: Mapping[Role, Split]

    @cached_property
    def _alike(self) -> dict[Role, float]:
        return {role: share_alike([*split.trained, *split.validation]) for role, split in self.splits.items()}

    def measures(self, role: Role) -> dict[str, float | None]:
        """Numbers that the rules look at, by name; None where one does not exist.

        num_files: photos or clips. alike: share of them that look almost like another. unlearned: `loss_ratio`, or what is left on
        the data trained on if that is less. gap: what more is left on data held out than on data trained on. rise: of the
        loss left since its lowest, where that on training data fell meanwhile, up to the pair that is the result. late_gain: of
        the last evaluation, where that pair is the result.
        leakage, interference: see `SideScores`.
        """
        side, split = self.kept.sides[role], self.splits[role]
        history = [evaluation.sides[role] for evaluation in self.evaluations if evaluation.step <= self.kept.step]
        is_last = self.kept.step == self.evaluations[-1].step
        seen = side.train_loss_ratio
        return {
            "num_files": float(split.num_files),
            "alike": self._alike[role],
            "unlearned": side.loss_ratio if seen is None else min(side.loss_ratio, seen),
            "gap": None if seen is None else side.loss_ratio - seen,
            "rise": _rise(history),
            "late_gain": history[-2].loss_ratio - history[-1].loss_ratio if is_last and len(history) > 1 else None,
            "leakage": side.leakage,
            "interference": side.interference,
        }

    def limits(self) -> list[Limit]:
        """What limits the result, in the order of the rules."""
        measures = {role: self.measures(role) for role in self.kept.sides}
        found = []
        for rule in RULES:
            for role in self.kept.sides:
                value = measures[role][rule.measure]
                if role not in rule.roles or value is None or not (value < rule.threshold if rule.is_lower else value > rule.threshold):
                    continue
                where = "held out" if self.splits[role].validation else "trained on"
                lowest = min(self.evaluations, key=lambda evaluation: evaluation.sides[role].loss_ratio)
                words = {
                    "value": value, "threshold": rule.threshold, "role": role, "noun": NOUNS[role],
                    "where": f"{NOUNS[role]} {where}", "step": lowest.step,
                }  # fmt: skip
                sentence, advice = rule.sentence.format(**words), rule.advice.format(**words)
                found.append(Limit(rule.name, role, rule.measure, value, rule.threshold, sentence, advice))
        return found

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "step": self.step,
            "steps": self.steps,
            "stopped_early": self.step < self.steps,
            "kept_step": self.kept.step,
            "best_step": best_of(self.evaluations).step,
            "basis": {role: self.splits[role].basis for role in self.kept.sides},
            "validation": {role: list(self.splits[role].names) for role in self.kept.sides},
            "measures": {role: self.measures(role) for role in self.kept.sides},
            "limits": [vars(limit) for limit in self.limits()],
            "evaluations": [evaluation.record() for evaluation in self.evaluations],
        }

    def lines(self) -> list[str]:
        """For people, as Markdown."""
        early = ", where no side improved any more" if self.step < self.steps else ""
        lines = ["# What limits this result", "", f"Trained {self.step} of {self.steps} steps{early}."]
        if self.kept.step != self.step:
            lines.append(f"The result is the pair of step {self.kept.step}, whose loss was the lowest.")
        lines += ["", "| side | judged on | loss left, this side on | both sides on | leak |", "| --- | --- | --- | --- | --- |"]
        for role, side in self.kept.sides.items():
            losses = f"{side.loss_ratio:.0%} of the base's", f"{side.loss / side.base_loss:.0%}"
            row = (role, self.splits[role].basis, *losses, f"{side.leakage:.2f}")
            lines.append(f"| {' | '.join(row)} |")
        limits = self.limits()
        lines += ["", *(f"- {limit.sentence} {limit.advice}" for limit in limits)]
        return lines if limits else [*lines, "Nothing was found that limits it: no measure lies beyond its threshold."]


def _rise(history: Sequence[SideScores]) -> float | None:
    """Rise of the loss left on data held out since its lowest, if that on training data fell; None where nothing is held out."""
    lowest, last = min(history, key=lambda side: side.loss_ratio), history[-1]
    if last.train_loss_ratio is None or lowest.train_loss_ratio is None:
        return None
    return last.loss_ratio - lowest.loss_ratio if last.train_loss_ratio < lowest.train_loss_ratio else 0.0
