"""The benchmark's report from its results: tables, the ranking, a contact sheet per method, and how to run a method again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from ..errors import InputError
from ..files.atomic import atomic_path
from ..plots import contact_sheet, save
from .benchmark import Benchmark
from .intervals import LEVEL, NOTHING, NUM_RESAMPLES, Estimate
from .measures import MEASURES
from .methods import shown_settings
from .plot import can_rank, ranking_plot, write_png
from .registry import find_method
from .request_sets import ALL_REQUESTS, FORMER_REQUESTS
from .results import Case, Protocol, is_current
from .summary import NUM_SEEDS_AGAIN, Summary, advantages, best, comparable, margin, place_of, summarise

AGAIN = ("identity", "motion", "retention_identity", "retention_motion")
COMPARED = (*AGAIN, "known_motions_kept", "neither_look", "neither_motion")
MAX_SHEET_ROWS = 12
NUM_HEADER_LINES = 2
"""Of a table in Markdown."""
FUSION = {
    "identity": "identity score",
    "motion": "motion score",
    "identity_top1": "identity top-1",
    "motion_top1": "motion top-1",
    "retention_identity": "retention of identity",
    "retention_motion": "retention of motion",
}
BESIDES = {
    "adherence": "background asked for",
    "other_subject_look": "other subject",
    "other_subject_motion": "motion, other subject",
    "leak_clip_looks": "leak: clips' subjects",
    "leak_figure_excess": "leak: figure unasked",
    "consistency": "consistency",
    "dynamic_degree": "cells per frame",
    "dynamic_ratio": "of the clips'",
}
UNASKED = {
    "known_motion_motion": "known motion",
    "known_motions_kept": "known motions kept",
    "known_motion_identity": "identity there",
    "leak_motion": "leak: motion unasked",
    "neither_look": "neither: look",
    "neither_motion": "neither: motion",
    "neither_difference": "neither: largest change",
    "untriggered_motion": "no trigger: motion",
    "untriggered_figure_excess": "no trigger: leak of the figure",
    "untriggered_difference": "no trigger: largest change",
}
"""What becomes of prompts that name one side or neither."""


def write_report(benchmark: Benchmark, against: str = "ours") -> None:
    """Writes report.md, results.json, ranking.png and sheets/METHOD.png from the results that are there.

    Results of a method that was changed since are left out, and the report says so.

    Args:
        against: the method that each other one is compared with, trial by trial.

    Raises:
        InputError: there are none, or the folder holds no benchmark, or no such method.
    """
    find_method(against)
    protocol, folder, found = benchmark.protocol, benchmark.path, benchmark.results.read()
    results = [result for result in found if is_current(result, protocol)]
    outdated = sorted({result["method"] for result in found if not is_current(result, protocol)})
    if not results:
        of_now = f" of {', '.join(outdated)} as they are now" if outdated else ""
        raise InputError(f"{folder} holds no results{of_now} yet: run the benchmark first.")
    summaries = summarise(results)
    common = comparable(results)
    compared = summaries if len(common) == len(results) else summarise(common)
    has_ranking = any(map(can_rank, compared))
    if has_ranking:
        write_png(folder / "ranking.png", ranking_plot(compared, "What each way to fuse keeps"))
    for summary in summaries:
        _write_sheet(benchmark, summary, [result for result in results if result["method"] == summary.method])
    gains = advantages(results, COMPARED, against)
    figures = {
        "protocol": protocol.recorded(),
        "methods": {summary.method: summary.as_dict() for summary in summaries},
        "margin_percent": {measure: margin(compared, measure) for measure in ("identity", "motion")},
        f"{against}_minus_method": {method: {name: asdict(value) for name, value in values.items()} for method, values in gains.items()},
        "results": results,
    }
    with atomic_path(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with atomic_path(folder / "report.md") as temporary:
        left_out = f"- left out, as they were made from other settings than these methods have now: results of {', '.join(outdated)}"
        headline = [*([left_out] if outdated else []), *_headline(compared, common, results)]
        lines = _lines(protocol, summaries, headline, results, against, gains, has_ranking)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(rows: Iterable[tuple[str, Mapping[str, Estimate]]], columns: Mapping[str, str]) -> list[str]:
    """Means and intervals as Markdown, with the number of trials that the fullest column is over.

    Args:
        rows: title and estimates.
        columns: heading by measure; those that no row was asked for are left out.
    """
    rows = list(rows)
    columns = {name: heading for name, heading in columns.items() if any(name in one and one[name].mean is not None for _, one in rows)}
    lines = [f"| method | trials | {' | '.join(columns.values())} |", "| --- |" + " ---: |" * (len(columns) + 1)]
    for title, estimates in rows:
        chosen = [estimates.get(measure, NOTHING) for measure in columns]
        if all(value.mean is None for value in chosen):  # not asked for any of it
            continue
        lines.append(f"| {title} | {max(value.count for value in chosen)} | {' | '.join(map(shown, chosen))} |")
    return lines


def shown(value: Estimate) -> str:
    """'.912 (.873 to .940)'; without interval where there is none, '-' where there is no value."""
    if value.mean is None:
        return "-"
    return _number(value.mean) if value.low is None else f"{_number(value.mean)} ({_number(value.low)} to {_number(value.high)})"


def _number(value: float) -> str:
    text = f"{round(value, 3) + 0.0:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _lines(
    protocol: Protocol,
    summaries: Sequence[Summary],
    headline: Sequence[str],
    results: Sequence[dict],
    against: str,
    gains: Mapping[str, Mapping[str, Estimate]],
    has_ranking: bool,
) -> list[str]:
    places = sorted({place_of(result) for result in results})
    identities, motions, seeds = (sorted({place[part] for place in places}) for part in range(3))
    steps = protocol.recipe.train.steps
    rows = [(summary.title, summary.estimates) for summary in summaries]
    lines = [
        "# Fusion benchmark",
        "",
        f"{len(results)} results: figures {', '.join(identities)}; motions {', '.join(motions)}; seeds {', '.join(map(str, seeds))}. "
        f"{steps} training steps for every method, {steps // 2} for a side alone.",
        "",
        f"Means over trials; in brackets {LEVEL:.0%} intervals from {NUM_RESAMPLES} bootstrap samples over figures, motions and seeds "
        "(none for a single trial). Retention is (fused - base) / (side alone - base), the mean over trials in which it is defined.",
        "",
        "## Fusion",
        "",
        *table(rows, FUSION),
        "",
        *headline,
        "",
        *_section("## Unasked", table(rows, UNASKED)),
        *_section("## Prompts, leakage, consistency", table(rows, BESIDES)),
    ]
    if gains:
        compared = [(find_method(method).title, estimates) for method, estimates in gains.items()]
        whose, columns = "Ours" if against == "ours" else find_method(against).title, {**FUSION, **UNASKED}
        lines += _section(f"## {whose} minus each method, trial by trial", table(compared, {name: columns[name] for name in COMPARED}))
    if has_ranking:
        lines += ["![retention of the motion over that of the identity](ranking.png)", ""]
    lines += ["## Methods", ""]
    for summary in summaries:
        settings = shown_settings(summary.settings)
        setting = f" ({settings})" if settings else ""
        lines.append(f"- **{summary.title}** (`{summary.method}`): {summary.what}{setting}. [Videos](sheets/{_file_name(summary.method)})")
    lines += ["", "## Measures", ""]
    lines += [f"- `{name}`: {what}." for name, what in MEASURES.items()]
    benchmark = "two-loras" if protocol.precision == "bf16" else "fusion"
    again = [max(seeds) + 1 + number for number in range(NUM_SEEDS_AGAIN)]
    scope = f"--identities {' '.join(identities)} --motions {' '.join(motions)} --steps {steps}"
    scope += "".join(f" --seed {seed}" for seed in again)
    scope += "" if protocol.sampling_steps is None else f" --sampling-steps {protocol.sampling_steps}"
    scope += "" if protocol.guidance is None else f" --guidance {protocol.guidance:g}"
    if benchmark == "fusion" and protocol.asks not in (FORMER_REQUESTS, ALL_REQUESTS):
        scope += f" --asks {' '.join(protocol.asks)}"
    lines += [
        "",
        "## Again",
        "",
        "One method with other seeds; it comes with the methods that retention is held against. A changed recipe needs its `--config` too.",
        *_where_it_lands(summaries, len(seeds)),
        "",
        "```",
        *(
            f"dualreal bench {benchmark} --methods {shlex.quote(summary.method)} {scope} --out again-{number}"
            for number, summary in enumerate(summaries, 1)
        ),
        "```",
    ]
    return lines


def _section(heading: str, rows: Sequence[str]) -> list[str]:
    """A table below its heading; nothing where it would be empty."""
    return [heading, "", *rows, ""] if len(rows) > NUM_HEADER_LINES else []


def _where_it_lands(summaries: Sequence[Summary], num_seeds: int) -> list[str]:
    """Limits for another run, wider than the intervals of the means, as that run has chance of its own."""
    if num_seeds < 2:
        return ["Where it lands cannot be told from one seed: how much seeds differ takes several."]
    return [
        f"{LEVEL:.0%} of such runs, with {NUM_SEEDS_AGAIN} new seeds, lie where this table says (Student's t on the means of the "
        f"{num_seeds} seeds).",
        "",
        *table([(summary.title, summary.again) for summary in summaries], {name: FUSION[name] for name in AGAIN}),
    ]


def _headline(summaries: Sequence[Summary], common: Sequence[Mapping], results: Sequence[dict]) -> list[str]:
    """What is best, and what ours gains over the baselines; `summaries` are of the `common` ones of the results."""
    if not common:
        return ["- no figure, motion and seed has all of these methods, so that none is named best"]
    num_places = len({place_of(result) for result in common})
    lines = (
        [] if len(common) == len(results) else [f"- the ranking and what follows are over the {num_places} trials that every method has:"]
    )
    for measure in ("retention_identity", "retention_motion"):
        first = best(summaries, measure)
        if first is not None:
            lines.append(f"- highest {FUSION[measure]}: {first.title}, {shown(first.estimates[measure])}")
    margins = {measure: margin(summaries, measure) for measure in ("identity", "motion")}
    if all(margins.values()):
        names = ", ".join(margins["identity"][1])
        scores = ", ".join(f"{FUSION[measure]} {percent:+.1f} %" for measure, (percent, _) in margins.items())
        lines.append(f"- ours against the mean of the baselines ({names}): {scores}")
    return lines


def _write_sheet(benchmark: Benchmark, summary: Summary, results: Sequence[dict]) -> None:
    """One video per figure and motion, of the lowest seed; the prompt changes from row to row, not chosen by its score."""
    first = {(result["identity"], result["motion"]): result for result in sorted(results, key=lambda result: -result["seed"])}
    rows = []
    for number, (place, result) in enumerate(sorted(first.items())[:MAX_SHEET_ROWS]):
        videos, scores = benchmark.results.videos(Case.of(result)), result["scores"]
        scored = f"identity {scores['identity']:.2f} motion {scores['motion']:.2f}"
        rows.append((", ".join(place), scored, videos[number % 5]))
    save(benchmark.path / "sheets" / _file_name(summary.method), contact_sheet(rows))


def _file_name(method: str) -> str:
    return method.replace("[", "-").replace("]", "").replace(",", "-") + ".png"
