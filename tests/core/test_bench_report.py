"""Intervals, retention and the margin against hand-computed numbers; the report from saved results."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dualreal_core.bench.benchmark import Benchmark
from dualreal_core.bench.experiment import TOY_RECIPE
from dualreal_core.bench.intervals import Estimate, estimate, prediction
from dualreal_core.bench.measures import MEASURES
from dualreal_core.bench.plot import ranking_plot, write_png
from dualreal_core.bench.registry import METHODS, REFERENCES
from dualreal_core.bench.report import shown, write_report
from dualreal_core.bench.results import Case, Protocol
from dualreal_core.bench.summary import Summary, advantages, best, comparable, margin, summarise, with_references
from dualreal_core.toyworld.trial import Trial

PROTOCOL = Protocol(TOY_RECIPE)


def result(method: str, identity: float, motion: float, place: tuple[str, str, int] = ("vex", "zigzag", 0), leak: float = 0.5) -> dict:
    scores = {**dict.fromkeys(MEASURES, 0.5), "identity": identity, "motion": motion, "leak_figure": leak}
    made_from = Case(method, Trial(*place)).made_from(PROTOCOL)
    return {"method": method, "identity": place[0], "motion": place[1], "seed": place[2], "scores": scores, "made_from": made_from}


def test_interval_of_two_figures_by_hand():
    # means of two draws from {0, 1}: 0, 1/2 and 1 with 1/4, 1/2 and 1/4, so both ends lie within 95 %
    assert estimate({("a", "x", 0): 0.0, ("b", "x", 0): 1.0}) == Estimate(0.5, 0.0, 1.0, 2)


def test_interval_of_many_seeds_is_that_of_their_mean():
    drawn = torch.randn(400, generator=torch.Generator().manual_seed(0))
    value = estimate({("a", "x", seed): float(one) for seed, one in enumerate(drawn)})
    half = 1.96 * float(drawn.std()) / 20
    assert value.mean == pytest.approx(float(drawn.mean()), abs=1e-6)
    assert value.low == pytest.approx(value.mean - half, abs=0.2 * half)
    assert value.high == pytest.approx(value.mean + half, abs=0.2 * half)


def test_interval_speaks_of_other_seeds_that_all_trials_share():
    values = {("a", motion, seed): float(seed) for motion in "stuvwxyz" for seed in (0, 1)}
    assert estimate(values) == Estimate(0.5, 0.0, 1.0, 16)


def test_interval_speaks_of_other_figures_not_of_more_seeds():
    few = {(identity, "x", seed): float(identity == "a") for identity in "ab" for seed in range(2)}
    many = {(identity, "x", seed): float(identity == "a") for identity in "ab" for seed in range(50)}
    assert estimate(few).high == estimate(many).high == 1.0


def test_undefined_values_are_left_out_and_counted():
    assert estimate({("a", "x", 0): 0.4, ("a", "x", 1): None}) == Estimate(0.4, None, None, 1)
    assert estimate({("a", "x", 0): None}) == Estimate(None, None, None, 0)
    constant = estimate({("a", "x", 0): 0.4, ("a", "y", 0): None, ("b", "y", 0): 0.4})
    assert (constant.low, constant.high, constant.count) == (pytest.approx(0.4), pytest.approx(0.4), 2)


@pytest.mark.parametrize(("spreads", "share"), [((0.05, 0.05, 0.05, 0.05), 0.88), ((0.0, 0.1, 0.0, 0.02), 0.75)])
def test_intervals_hold_the_truth_as_often_as_the_documentation_says(spreads, share):
    drawn = torch.Generator().manual_seed(2)
    inside = 0
    for _ in range(150):
        shapes = ((4, 1, 1), (1, 3, 1), (1, 1, 3), (4, 3, 3))
        values = sum(spread * torch.randn(shape, generator=drawn) for spread, shape in zip(spreads, shapes, strict=True))
        value = estimate({(str(one), str(two), seed): float(values[one, two, seed]) for one, two, seed in product(*map(range, (4, 3, 3)))})
        inside += value.low <= 0 <= value.high
    assert inside / 150 == pytest.approx(share, abs=0.08)


def test_where_another_run_lands_by_hand():
    # means of the seeds 0, 1, 2 are 0, 1, 2: standard deviation 1; t with 2 degrees of freedom is 4.30265
    values = {("a", motion, seed): seed + shift for motion, shift in (("x", -0.5), ("y", 0.5)) for seed in range(3)}
    again = prediction(values, num_seeds=2)
    assert (again.mean, again.count) == (pytest.approx(1), 6)
    assert again.high - again.mean == pytest.approx(4.30265 * (1 / 3 + 1 / 2) ** 0.5, rel=1e-5)
    assert again.mean - again.low == pytest.approx(again.high - again.mean)


def test_another_run_lands_there_95_times_of_100():
    drawn = torch.randn(400, 5, generator=torch.Generator().manual_seed(1))
    inside = 0
    for means in drawn.tolist():
        again = prediction({("a", "x", seed): mean for seed, mean in enumerate(means[:3])}, num_seeds=2)
        inside += again.low <= (means[3] + means[4]) / 2 <= again.high
    assert 0.92 <= inside / 400 <= 0.98


def test_where_another_run_lands_is_told_by_subjects_that_every_seed_has():
    values = {("a", "x", 0): 0.1, ("a", "x", 1): 0.1, ("a", "y", 0): 0.9, ("a", "y", 1): None}
    again = prediction(values, num_seeds=2)
    assert (again.mean, again.low, again.high, again.count) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 2)
    assert prediction({("a", "x", 0): 0.4, ("b", "x", 0): 0.5}, num_seeds=2) == Estimate(0.45, None, None, 2)
    assert prediction({("a", "x", 0): None, ("b", "x", 0): None}, num_seeds=2) == Estimate(None, None, None, 0)


def test_retention_by_hand():
    completed = with_references(
        [
            result("base", 0.5, 0.1, leak=0.3),
            result("identity-only", 0.9, 0.1),
            result("motion-only", 0.5, 0.1),
            result("ours", 0.8, 0.7, leak=0.45),
            result("ours", 0.8, 0.7, ("vex", "spiral", 0)),
        ]
    )
    ours, alone = completed[3]["scores"], completed[4]["scores"]
    assert ours["retention_identity"] == pytest.approx(0.75)
    assert ours["retention_motion"] is None  # the side alone is no better than the base
    assert ours["leak_figure_excess"] == pytest.approx(0.15)
    assert alone["retention_identity"] is alone["leak_figure_excess"] is None  # no reference of that motion


def test_margin_is_over_the_mean_of_the_baselines():
    results = [result("full-finetune", 0.6, 0.2), result("mixed-lora", 0.7, 0.2), result("sum", 0.9, 0.9), result("ours", 0.91, 0.5)]
    percent, names = margin(summarise(results), "identity")
    assert percent == pytest.approx(40.0)
    assert names == ["full-finetune", "mixed-lora"]
    assert margin(summarise(results[:3]), "identity") is None
    baselines = {"full-finetune", "mixed-lora", "motiondirector", "paper", "jointtuner", "smrabooth"}
    assert {name for name, method in METHODS.items() if method.is_baseline} == baselines


def test_methods_are_compared_where_all_of_them_were_run():
    other = ("nim", "zigzag", 1)
    results = [result("mixed-lora", 0.5, 0.2), result("ours", 0.6, 0.5), result("ours", 0.9, 0.5, other), result("base", 0.1, 0.1, other)]
    assert comparable(results) == []
    common = comparable([*results, result("base", 0.1, 0.1)])
    assert [(one["method"], one["scores"]["identity"]) for one in common] == [("mixed-lora", 0.5), ("ours", 0.6), ("base", 0.1)]
    assert margin(summarise(common), "identity")[0] == pytest.approx(20.0)


def test_advantage_is_taken_trial_by_trial():
    places = [(identity, "zigzag", 0) for identity in ("vex", "nim")]
    results = [result(name, level + one, 0.5, place) for name, level in (("sum", 0.1), ("ours", 0.2)) for one, place in enumerate(places)]
    gains = advantages([*results, result("ours", 0.9, 0.9, ("oru", "zigzag", 0))], ["identity", "motion"])
    assert list(gains) == ["sum"]
    value = gains["sum"]["identity"]
    assert (value.mean, value.low, value.high, value.count) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 2)
    assert gains["sum"]["motion"].mean == 0
    assert advantages(results[:2], ["identity"]) == {}


def test_best_method_is_no_reference():
    summaries = summarise([result("identity-only", 1.0, 0.0), result("sum", 0.7, 0.2), result("fixed", 0.6, 0.3)])
    assert best(summaries, "identity").method == "sum"
    assert best(summaries, "motion").method == "fixed"
    assert best(summaries, "retention_identity") is None


def test_summary_keeps_the_order_of_the_table():
    results = [result("ours", 0.9, 0.9), result("full-finetune[learning_rate=0.001]", 0.1, 0.1), result("full-finetune", 0.1, 0.1)]
    names = [summary.method for summary in summarise([*results, result("base", 0.1, 0.1)])]
    assert names == ["base", "full-finetune", "full-finetune[learning_rate=0.001]", "ours"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.9123, 0.8731, 1.0, 4), ".912 (.873 to 1.000)"),
        (Estimate(-0.05, None, None, 1), "-.050"),
        (Estimate(10.25, None, None, 1), "10.250"),
        (Estimate(-0.0001, None, None, 1), ".000"),
        (Estimate(None, None, None, 0), "-"),
    ],
)
def test_numbers_as_shown(value, text):
    assert shown(value) == text


def test_report_is_written_from_saved_results(tmp_path):
    benchmark = Benchmark(tmp_path)
    benchmark.begin(PROTOCOL)
    places = [(identity, motion, seed) for identity in ("vex", "nim") for motion in ("zigzag", "spiral") for seed in (0, 1)]
    levels = {"base": (0.4, 0.0), "identity-only": (0.9, 0.0), "motion-only": (0.5, 0.8), "mixed-lora": (0.5, 0.4), "ours": (0.9, 0.6)}
    for method, scores in levels.items():
        for place in places:
            file = benchmark.results.file(Case(method, Trial(*place)))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(result(method, *scores, place)))
            save_file({"videos": torch.zeros(11, 9, 3, 32, 32, dtype=torch.uint8)}, file.with_suffix(".safetensors"))
    write_report(benchmark)
    report = (tmp_path / "report.md").read_text()
    ours = next(line for line in report.splitlines() if line.startswith("| DualReal, ours |"))
    assert ours.count("1.000 (1.000 to 1.000)") == 1  # retention of the identity; that of the motion is .75
    assert ".750 (.750 to .750)" in ours
    assert ours.startswith("| DualReal, ours | 8 | .900 (.900 to .900) | .600 (.600 to .600) |")
    assert "(learning_rate=0.004). [Videos](sheets/mixed-lora.png)" in report
    assert "identity score +80.0 %, motion score +50.0 %" in report
    assert "dualreal bench fusion --methods ours --identities nim vex --motions spiral zigzag --steps 800 --seed 2 --seed 3" in report
    where_it_lands = report.split("## Again")[1]
    assert "2 new seeds" in where_it_lands
    landed = next(line for line in where_it_lands.splitlines() if line.startswith("| DualReal, ours |"))
    assert landed.split(" | ")[1:4] == ["8", ".900 (.900 to .900)", ".600 (.600 to .600)"]
    assert "that every method has" not in report
    figures = json.loads((tmp_path / "results.json").read_text())
    assert figures["methods"]["ours"]["retention_motion"]["count"] == 8
    assert figures["methods"]["ours"]["again"]["motion"]["high"] == pytest.approx(0.6)
    assert len(figures["results"]) == 40
    for name in ("ranking", *(f"sheets/{method}" for method in levels)):
        assert Image.open(tmp_path / f"{name}.png").width > 300
    assert "left out" not in report
    file = benchmark.results.file(Case("mixed-lora", Trial("vex", "zigzag", 0)))
    old = json.loads(file.read_text())
    file.write_text(json.dumps({**old, "made_from": {**old["made_from"], "runs": ["mixed-lora-as-it-once-was"]}}))
    write_report(benchmark)
    report = (tmp_path / "report.md").read_text()
    assert "are over the 7 trials that every method has" in report
    assert "left out, as they were made from other settings than these methods have now: results of mixed-lora" in report
    assert len(json.loads((tmp_path / "results.json").read_text())["results"]) == 39


def test_documented_results_follow_from_the_stored_scores():
    """Scores are stored with four digits; what is shown with two was rounded from the report's three."""
    docs = Path(__file__).parents[2] / "docs"
    results = json.loads((docs / "fusion-cells.json").read_text(encoding="utf-8"))
    of_all = {summary.method: summary.estimates for summary in summarise(results)}
    of_seed_0 = {summary.method: summary.estimates for summary in summarise([one for one in results if one["seed"] == 0])}
    text = (docs / "benchmark.md").read_text(encoding="utf-8").split("## Results")[1].split("```")[0]
    rows = re.findall(r"^\| `([a-z-]+)`.*? \| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 14
    for method, num_trials, shown_values in rows:
        estimates = (of_all if num_trials == "60" else of_seed_0)[method]
        values = [estimates["identity"].mean, estimates["motion"].mean]
        if method not in REFERENCES:
            for measure in ("retention_identity", "retention_motion"):
                values += [estimates[measure].mean, estimates[measure].low, estimates[measure].high]
        assert estimates["identity"].count == int(num_trials)
        assert [float(number) for number in re.findall(r"-?\d*\.\d+", shown_values)] == pytest.approx(values, abs=0.006), method


def test_ranking_sets_methods_apart_and_ours_off(tmp_path):
    def ranked(method: str, identity: Estimate, motion: Estimate) -> Summary:
        return Summary(method, method, "", {}, {"retention_identity": identity, "retention_motion": motion}, {})

    ours = ranked("ours", Estimate(0.9, 0.8, 1.0, 4), Estimate(0.7, None, None, 1))
    other = ranked("sum", Estimate(0.5, 0.4, 0.6, 4), Estimate(0.5, 0.4, 0.6, 4))
    undefined = ranked("lost", Estimate(None, None, None, 0), Estimate(0.5, None, None, 1))

    def colours(*summaries: Summary) -> set:
        write_png(tmp_path / "ranking.png", ranking_plot(summaries, "Ranking"))
        return {colour for _, colour in Image.open(tmp_path / "ranking.png").convert("RGB").getcolors(maxcolors=1 << 20)}

    assert (0, 114, 178) in colours(ours, undefined)
    assert (96, 104, 116) not in colours(ours, undefined)  # no dot of another method
    assert {(0, 114, 178), (96, 104, 116), (176, 182, 190)} <= colours(ours, other)
    with pytest.raises(ValueError, match="at least one method"):
        ranking_plot([undefined], "Ranking")
