"""Prints a benchmark's tables from the scores that docs/ keeps, with paired differences between any two methods.

python benchmarks/tables.py gate --part test --against no-gate
python benchmarks/tables.py cfg-1 --part test-8 --against ours --pairs
python benchmarks/tables.py cfg-1 --part test-8 --results build/cfg-1/results
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from dualreal_core.bench.cells import read_cells, read_results, write_cells
from dualreal_core.bench.paired_table import paired_table, pairs_table
from dualreal_core.bench.registry import REFERENCES, find_method
from dualreal_core.bench.two_lora_table import KEPT
from dualreal_core.errors import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"
RETENTION = dict(zip(KEPT, ("identity kept", "motion kept"), strict=True))


@dataclass(frozen=True)
class Table:
    """Attributes:
        cells: file in docs/.
        columns: heading by measure.
        stored: measures that the file keeps.
        against: the method that others are compared with.
        omitted: methods without a row.
    """

    cells: str
    columns: dict[str, str]
    stored: tuple[str, ...]
    against: str
    omitted: tuple[str, ...] = ()


SCORES = ("identity", "motion", "identity_top1", "motion_top1")
UNASKED = (
    "known_motion_identity", "known_motion_motion", "leak_motion", "neither_look", "neither_motion", "neither_difference",
    "untriggered_motion", "untriggered_figure", "untriggered_difference",
)  # fmt: skip
TABLES = {
    "gate": Table(
        "gate-cells.json",
        {**RETENTION, "known_motion_motion": "known motion", "neither_look": "neither: look", "neither_motion": "neither: motion"},
        (*SCORES, *UNASKED),
        "no-gate",
    ),
    "cfg-1": Table("cfg-1-cells.json", RETENTION, SCORES, "ours", REFERENCES),
}


def main() -> None:
    """Reads, stores, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--part", default="test", help="of the stored scores")
    parser.add_argument("--results", type=Path, help="stores the scores of these results as that part first")
    parser.add_argument("--against", metavar="METHOD", help="what each is compared with, trial by trial")
    parser.add_argument("--columns", nargs="+", metavar="MEASURE", help="measures to show instead")
    parser.add_argument("--pairs", action="store_true", help="pair by pair instead of means")
    arguments = parser.parse_args()
    chosen = TABLES[arguments.table]
    file = DOCS / chosen.cells
    if arguments.results:
        write_cells(file, arguments.part, read_results(arguments.results), chosen.stored)
    results = read_cells(file, arguments.part)
    columns = {name: name for name in arguments.columns} if arguments.columns else chosen.columns
    against = arguments.against or chosen.against
    find_method(against)
    if arguments.pairs:
        methods = list(dict.fromkeys(result["method"] for result in results))
        shown = [name for name in methods if name not in REFERENCES]
        print("\n".join(pairs_table(results, list(columns), shown)))
    else:
        print("\n".join(paired_table(results, columns, against, chosen.omitted)))


if __name__ == "__main__":
    try:
        main()
    except (InputError, KeyError) as error:
        sys.exit(str(error))
