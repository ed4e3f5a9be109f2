"""Prints the two-LoRA benchmark's table from the scores in docs/two-lora-cells.json, or of a benchmark's folder.

python benchmarks/two_loras.py --against sum-scheduled
python benchmarks/two_loras.py --results build/two-loras/results --write docs/two-lora-cells.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from dualreal_core.bench.intervals import Place, estimate
from dualreal_core.bench.registry import find_method
from dualreal_core.bench.report import shown
from dualreal_core.bench.summary import place_of, with_references
from dualreal_core.errors import InputError

CELLS = Path(__file__).resolve().parents[1] / "docs" / "two-lora-cells.json"
KEPT = ("retention_identity", "retention_motion")
SCORES = ("identity", "motion", "identity_top1", "motion_top1")
ORACLE = "best dial of each pair"
Cells = dict[str, dict[Place, dict[str, float]]]
"""Retentions and seconds by method and place."""


def main() -> None:
    """Reads and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="a benchmark's results instead of the stored scores")
    parser.add_argument("--write", type=Path, help="stores the scores of these results")
    parser.add_argument("--against", default="sum-scheduled", metavar="METHOD", help="what each is compared with, trial by trial")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="of these seeds alone")
    parser.add_argument("--tuning", action="store_true", help="the tuning figures and motions' part of the stored scores")
    arguments = parser.parse_args()
    part = "tuning" if arguments.tuning else "test"
    results = _read(arguments.results) if arguments.results else json.loads(CELLS.read_text(encoding="utf-8"))[part]
    if arguments.write:
        stored = json.loads(arguments.write.read_text(encoding="utf-8")) if arguments.write.exists() else {}
        stored[part] = [_stored(result) for result in results]
        arguments.write.write_text(_lines(stored), encoding="utf-8")
    chosen = [result for result in results if arguments.seeds is None or result["seed"] in arguments.seeds]
    print("\n".join(table(cells_of(chosen), arguments.against)))


def cells_of(results: Sequence[Mapping]) -> Cells:
    """Retentions of every method but the references, and what it costs beyond training both sides; with the oracle over the dial."""
    cells: Cells = {}
    trained = {place_of(result): result["seconds"]["training"] for result in results if result["method"] == "sum"}
    for result in with_references(results):
        kept, place = {name: result["scores"][name] for name in KEPT}, place_of(result)
        if None in kept.values() or place not in trained or find_method(result["method"]).trainers in ((), ("identity",), ("motion",)):
            continue
        seconds = max(result["seconds"]["training"] - trained[place], 0.0) + result["seconds"].get("joining", 0.0)
        cells.setdefault(result["method"], {})[place] = {**kept, "seconds": seconds}
    dials = {name: scores for name, scores in cells.items() if name.partition("[")[0] == "curves"}
    if len(dials) > 1:
        common = set.intersection(*map(set, dials.values()))
        cells[ORACLE] = {place: max((scores[place] for scores in dials.values()), key=_total) for place in common}
    return cells


def table(cells: Cells, against: str) -> list[str]:
    """Means with intervals, and differences trial by trial, as Markdown."""
    heading = f"| method | trials | identity kept | motion kept | minus `{against}`: identity | motion | s per pair |"
    lines = [heading, "| --- |" + " ---: |" * 6]
    other = cells.get(against, {})
    for name, scores in cells.items():
        means = [estimate({place: one[kept] for place, one in scores.items()}) for kept in KEPT]
        gains = [estimate({place: one[kept] - other[place][kept] for place, one in scores.items() if place in other}) for kept in KEPT]
        compared = ["", ""] if name == against else map(shown, gains)
        seconds = fmean(one["seconds"] for one in scores.values())
        lines.append(f"| `{name}` | {len(scores)} | {' | '.join(map(shown, means))} | {' | '.join(compared)} | {seconds:.0f} |")
    return lines


def _total(cell: Mapping[str, float]) -> float:
    return sum(cell[name] for name in KEPT)


def _read(folder: Path) -> list[dict]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/*.json"))]


def _stored(result: Mapping) -> dict:
    scores = {name: round(result["scores"][name], 4) for name in SCORES}
    kept = {name: result[name] for name in ("method", "identity", "motion", "seed")}
    return {**kept, "scores": scores, "seconds": result["seconds"], **({"note": result["note"]} if "note" in result else {})}


def _lines(stored: Mapping[str, Sequence[Mapping]]) -> str:
    """JSON with a result a line."""
    parts = (f'"{name}": [\n' + ",\n".join(json.dumps(one) for one in results) + "\n]" for name, results in stored.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
