"""The report says what limits a result, and only what its table of thresholds finds."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from tiny import make_items

from dualreal_core.method.pair import ROLES
from dualreal_core.training.report import RULES, Outcome, share_alike
from dualreal_core.training.run import RunDirectory
from dualreal_core.training.scores import Evaluation, SideScores
from dualreal_core.training.validation import Split

GOOD = {"single_loss": 0.5, "base_loss": 1.0, "train_loss_ratio": 0.45, "leakage": 0.5}
ADDED = 0.05
"""By the other side to the loss, in a good run."""


def outcome(num_files: int = 6, step: int = 300, *history: dict, items: list | None = None, **last: float) -> Outcome:
    """A run whose evaluations, 100 steps apart, are good but for what is said: `history` of those before the last."""
    rows = [{**GOOD, **row} for row in ([*history, last] if history else [{}, {}, last])]
    evaluations = [
        Evaluation(100 * index, {role: SideScores(**{"loss": row["single_loss"] + ADDED, **row}) for role in ROLES})
        for index, row in enumerate(rows, 1)
    ]
    samples = items or make_items("identity", num_files)
    split = Split(samples[1:], samples[:1], num_files, (samples[0].source,), f"held out: 1 of {num_files}")
    return Outcome(step, 300, evaluations[-1], evaluations, dict.fromkeys(ROLES, split))


def found(run: Outcome) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for limit in run.limits():
        names.setdefault(limit.name, set()).add(limit.role)
    return names


def test_nothing_is_found_in_a_good_run():
    run = outcome()
    assert run.limits() == [] and run.lines()[-1] == "Nothing was found that limits it: no measure lies beyond its threshold."


BOTH = {*ROLES}


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (outcome(3), {"too few": BOTH}),
        (outcome(single_loss=0.97, train_loss_ratio=0.96), {"not learned": BOTH}),
        (outcome(train_loss_ratio=0.25), {"learned by heart": BOTH}),
        (outcome(6, 300, {"single_loss": 0.7}, {"single_loss": 0.6}), {"unfinished": BOTH}),
        (outcome(6, 300, {"single_loss": 0.45}, train_loss_ratio=0.4), {"overfitted": BOTH}),
        (outcome(leakage=0.95), {"acts without its trigger": {"identity"}, "takes appearance": {"motion"}}),
        (outcome(loss=0.7), {"stiffened": {"motion"}}),
        (outcome(loss=1.1), {"stiffened": {"motion"}, "disturbed": {"identity"}}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_limit_is_found_alone(run, expected):
    assert found(run) == expected


def test_what_came_after_the_pair_that_was_kept_is_not_held_against_it():
    later = outcome(6, 300, {"single_loss": 0.45}, {"single_loss": 0.4}, train_loss_ratio=0.4)
    assert set(found(later)) == {"overfitted"}
    assert found(dataclasses.replace(later, kept=later.evaluations[1])) == {}


def test_near_identical_photos_are_found():
    items = make_items("identity", 6)
    twins = [dataclasses.replace(item, latents=item.latents + 0.01 * torch.randn(item.latents.shape)) for item in items[:2]]
    assert share_alike(items) == 0 and share_alike([*items, *twins]) == pytest.approx(4 / 8)
    assert found(outcome(8, items=[*items, *twins])) == {"near-identical": {*ROLES}}


def test_views_of_one_photo_are_not_copies():
    view = dataclasses.replace(make_items("identity", 1)[0], fingerprint="a")
    others = [dataclasses.replace(item, fingerprint=name) for item, name in zip(make_items("identity", 2, seed=9), "bc", strict=True)]
    assert share_alike([view, view, view, *others]) == 0


def test_learnt_by_heart_is_not_called_unlearnt():
    """Held-out data is no better than the base, but training data is."""
    assert found(outcome(single_loss=1.0, train_loss_ratio=0.4)) == {"learned by heart": {*ROLES}, "overfitted": {*ROLES}}


def test_without_held_out_data_nothing_is_said_about_it():
    assert found(outcome(6, 300, {"train_loss_ratio": None}, single_loss=0.6, train_loss_ratio=None)) == {}
    assert found(outcome(train_loss_ratio=None, single_loss=0.98)).keys() == {"not learned"}


def test_rising_on_both_kinds_of_data_is_not_overfitting():
    assert found(outcome(6, 300, {"train_loss_ratio": 0.4}, single_loss=0.6, train_loss_ratio=0.5)) == {}


def test_every_sentence_names_its_number():
    for rule in RULES:
        for template in (rule.sentence, rule.advice):
            template.format(value=1.0, threshold=1.0, role="identity", noun="photos", where="photos held out", step=1)
        assert "{value" in rule.sentence and "{threshold" in rule.sentence
    (limit, _) = outcome(leakage=0.95).limits()
    assert "0.95 times" in limit.sentence and "more than 0.90" in limit.sentence


def test_the_report_is_written_for_people_and_programs(tmp_path):
    run = outcome(3, 200)
    directory = RunDirectory(tmp_path)
    directory.write_report(run)
    written = json.loads((tmp_path / "report.json").read_text())
    assert directory.report() == run.lines()
    assert written["stopped_early"] and [limit["name"] for limit in written["limits"]] == ["too few", "too few"]
    assert "Trained 200 of 300 steps" in "\n".join(directory.report()) and "- There are only 3 clips" in "\n".join(directory.report())
