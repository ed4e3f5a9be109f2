"""Stored scores, and tables of paired differences between any two methods."""

from __future__ import annotations

import json

import pytest

from dualreal_core.bench.cells import read_cells, read_results, write_cells
from dualreal_core.bench.kept_tables import KeptTable
from dualreal_core.bench.paired_table import paired_table, pairs_table
from dualreal_core.bench.report import shown
from dualreal_core.bench.summary import advantages, differences

PLACES = [(identity, motion, seed) for identity in ("vex", "nim") for motion in ("zigzag", "spiral") for seed in (0, 1)]
LEVELS = {"base": (0.5, 0.1), "identity-only": (0.9, 0.1), "motion-only": (0.5, 0.9), "sum": (0.7, 0.5), "no-gate": (0.8, 0.7)}


def result(method: str, place: tuple[str, str, int], number: int = 0, **more: float) -> dict:
    identity, motion = LEVELS[method]
    scores = {"identity": identity + 0.01 * number * (method == "no-gate"), "motion": motion, "known_motion_motion": motion / 2, **more}
    return {
        "method": method, "identity": place[0], "motion": place[1], "seed": place[2], "scores": scores,
        "seconds": {"training": 1.0, "joining": 0.0, "sampling": 2.0},
    }  # fmt: skip


@pytest.fixture
def results() -> list[dict]:
    return [result(method, place, number) for method in LEVELS for number, place in enumerate(PLACES)]


def test_differences_are_between_any_two_and_turn_their_sign_with_the_order(results):
    forth = differences(results, ["identity", "motion"], "sum")["no-gate"]
    back = differences(results, ["identity", "motion"], "no-gate")["sum"]
    assert forth["motion"].mean == pytest.approx(0.2) == -back["motion"].mean
    assert forth["identity"].mean == pytest.approx(0.1 + 0.035) and forth["identity"].low < forth["identity"].mean
    assert (back["identity"].low, back["identity"].high) == pytest.approx((-forth["identity"].high, -forth["identity"].low), abs=1e-9)
    assert set(differences(results, ["motion"], "sum")) == set(LEVELS) - {"sum"} and differences(results, ["motion"], "ours") == {}


def test_an_advantage_is_a_difference_seen_from_the_other_side(results):
    gains, lost = advantages(results, ["identity"], "no-gate"), differences(results, ["identity"], "no-gate")
    assert set(gains) == {"sum"}
    assert (gains["sum"]["identity"].low, gains["sum"]["identity"].high) == (-lost["sum"]["identity"].high, -lost["sum"]["identity"].low)


def test_a_table_shows_means_and_what_is_gained_over_one_of_them(results):
    lines = paired_table(results, {"retention_motion": "motion kept", "known_motion_motion": "known motion"}, "sum", omitted=("base",))
    heading = "| method | trials | motion kept | known motion | minus `sum`: motion kept | minus `sum`: known motion |"
    assert lines[0] == heading and len(lines) == 2 + 4
    row = next(line for line in lines if line.startswith("| `no-gate` |"))
    assert row == "| `no-gate` | 8 | .750 (.750 to .750) | .350 (.350 to .350) | .250 (.250 to .250) | .100 (.100 to .100) |"
    assert next(line for line in lines if "`sum` |" in line).endswith(" |  |  |")


def test_pairs_are_means_over_their_seeds(results):
    lines = pairs_table(results, ["retention_identity", "retention_motion"], ["sum", "no-gate"])
    assert lines[0] == "| | `sum` | `no-gate` |"
    assert "| vex, zigzag | .50 / .50 | .76 / .75 |" in lines and len(lines) == 2 + 4  # (.75 + .775) / 2


def test_scores_are_stored_by_part_and_read_as_they_were(results, tmp_path):
    file = tmp_path / "cells.json"
    write_cells(file, "test", results, ("identity", "motion"))
    write_cells(file, "tuning", results[:1], ("identity",))
    assert read_cells(file, "tuning")[0]["scores"] == {"identity": 0.5}
    stored = read_cells(file, "test")
    assert len(stored) == len(results) and set(stored[0]["scores"]) == {"identity", "motion"}
    before = file.read_text()
    write_cells(file, "test", stored, ("identity", "motion"))
    assert file.read_text() == before
    with pytest.raises(KeyError):
        read_cells(file, "other")


def test_results_of_a_benchmark_are_found_below_their_methods(results, tmp_path):
    for one in results[:2]:
        file = tmp_path / one["method"] / f"{one['identity']}-{one['seed']}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(one))
    assert read_results(tmp_path) == results[:2]


def test_a_difference_of_one_trial_has_no_interval(results):
    of_one = [item for item in results if (item["identity"], item["motion"], item["seed"]) == PLACES[0]]
    assert shown(differences(of_one, ["motion"], "sum")["no-gate"]["motion"]) == ".200"


def test_rows_of_the_fusion_benchmark_stand_beside_at_the_same_places(results):
    table = KeptTable("x.json", {"identity": "identity"}, ("identity",), "sum", ("base",), beside=("no-gate", "sum"))
    own = [one for one in results if one["method"] in ("base", "sum") and one["seed"] == 0]
    both = table.with_beside(own, results)
    assert both[: len(own)] == own
    assert {(one["method"], one["seed"]) for one in both[len(own) :]} == {("no-gate", 0)}
    assert [line.split(" |")[0] for line in table.lines(both)[2:]] == ["| `sum`", "| `no-gate`"]
    assert table.lines(both, columns={"identity": "identity", "neither_look": "look"}) == table.lines(both)
