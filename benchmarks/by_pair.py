"""Prints what methods of the fusion benchmark keep of each pair, and in how many trials it is enough of both.

python benchmarks/by_pair.py --methods sum ours                                # of the scores in docs/fusion-cells.json
python benchmarks/by_pair.py build/fusion --methods ours-before ours           # of a benchmark's folder, which may lack references
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean

from dualreal_core.bench.registry import REFERENCES
from dualreal_core.method.pair import ROLES
from dualreal_core.toyworld.trial import retention

CELLS = Path(__file__).resolve().parents[1] / "docs" / "fusion-cells.json"
ENOUGH = 0.9
Place = tuple[str, str, int]
"""Figure, motion and seed."""
Kept = dict[Place, tuple[float, float]]
"""What is kept of the identity and of the motion, by trial."""


def main() -> None:
    """Reads and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="of a benchmark; default: the scores in docs")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", default=["ours"])
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", help="default: all that are there")
    arguments = parser.parse_args()
    results = json.loads(CELLS.read_text(encoding="utf-8"))
    if arguments.folder is not None:
        own = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.folder.glob("results/*/*.json"))]
        results = [one for one in results if one["method"] in REFERENCES] + own  # the later ones count
    kept = {method: kept_by(results, method, arguments.seeds) for method in arguments.methods}
    for method, trials in kept.items():
        print(f"\n{method}: {summary(trials)}\n\n" + "\n".join(table(trials)))
    common = set.intersection(*(set(trials) for trials in kept.values()))
    for method, trials in kept.items():
        print(f"\nof the {len(common)} trials that all have, {method}: {summary({place: trials[place] for place in common})}")


def kept_by(results: Iterable[Mapping], method: str, seeds: list[int] | None = None) -> Kept:
    """The retentions of a method, of trials that have references."""
    scores = {(one["method"], one["identity"], one["motion"], one["seed"]): one["scores"] for one in results}
    kept = {}
    for name, *place in scores:
        base, *alone = (scores.get((reference, *place)) for reference in REFERENCES)
        if name == method and base and all(alone) and (seeds is None or place[-1] in seeds):
            own = scores[(name, *place)]
            values = [retention(own[role], base[role], side[role]) for role, side in zip(ROLES, alone, strict=True)]
            if None not in values:
                kept[tuple(place)] = tuple(values)
    return kept


def summary(trials: Kept) -> str:
    """One line: in how many trials enough is kept, and the means."""
    enough = sum(min(values) >= ENOUGH for values in trials.values())
    means = (f"{fmean(values[side] for values in trials.values()):.3f} of the {role}" for side, role in enumerate(ROLES))
    return f"{enough} of {len(trials)} trials keep {ENOUGH:g} or more of both; in the mean {' and '.join(means)}" if trials else "no trials"


def table(trials: Kept) -> list[str]:
    """By pair: means and smallest of both, and the trials that keep enough."""
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for (identity, motion, _), values in sorted(trials.items()):
        pairs[identity, motion].append(values)
    lines = ["| pair | identity: mean, smallest | motion: mean, smallest | .9 of both |", "| --- | --- | --- | --- |"]
    for pair, values in pairs.items():
        sides = (f"{fmean(side):.2f}, {min(side):.2f}" for side in zip(*values, strict=True))
        lines.append(f"| {' '.join(pair)} | {' | '.join(sides)} | {sum(min(both) >= ENOUGH for both in values)} of {len(values)} |")
    return lines


if __name__ == "__main__":
    main()
