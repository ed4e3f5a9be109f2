"""Prints a benchmark's tables from the scores that docs/ keeps, with paired differences between any two methods.

python benchmarks/tables.py gate --part test --against no-gate
python benchmarks/tables.py cfg-1 --part test-8 --against ours --pairs
python benchmarks/tables.py cfg-1 --part test-8 --results build/cfg-1/results
python benchmarks/tables.py peers --part test --against jointtuner
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dualreal_core.bench.cells import read_cells, read_results, write_cells
from dualreal_core.bench.kept_tables import KEPT_TABLES
from dualreal_core.bench.paired_table import pairs_table
from dualreal_core.bench.registry import REFERENCES, find_method
from dualreal_core.errors import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> None:
    """Stores, reads, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=KEPT_TABLES)
    parser.add_argument("--part", default="test", help="of the stored scores")
    parser.add_argument("--results", type=Path, help="stores the scores of these results as that part first")
    parser.add_argument("--against", metavar="METHOD", help="what each is compared with, trial by trial")
    parser.add_argument("--columns", nargs="+", metavar="MEASURE", help="measures to show instead")
    parser.add_argument("--pairs", action="store_true", help="pair by pair instead of means")
    arguments = parser.parse_args()
    table = KEPT_TABLES[arguments.table]
    file = DOCS / table.cells
    if arguments.results:
        write_cells(file, arguments.part, read_results(arguments.results), table.stored)
    results = table.with_beside(read_cells(file, arguments.part), json.loads((DOCS / "fusion-cells.json").read_text(encoding="utf-8")))
    columns = {name: name for name in arguments.columns} if arguments.columns else table.columns
    if arguments.pairs:
        methods = dict.fromkeys(result["method"] for result in results if result["method"] not in REFERENCES)
        print("\n".join(pairs_table(results, list(columns), list(methods))))
    else:
        against = find_method(arguments.against or table.against).name
        print("\n".join(table.lines(results, against, columns)))


if __name__ == "__main__":
    try:
        main()
    except (InputError, KeyError) as error:
        sys.exit(str(error))
