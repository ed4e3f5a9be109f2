"""Prints the two-LoRA benchmark's table from the scores in docs/two-lora-cells.json, or of a benchmark's folder.

python benchmarks/two_loras.py --against sum-scheduled
python benchmarks/two_loras.py --results build/two-loras/results --write docs/two-lora-cells.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dualreal_core.bench.cells import read_cells, read_results, write_cells
from dualreal_core.bench.two_lora_table import cells_of, table
from dualreal_core.errors import InputError

CELLS = Path(__file__).resolve().parents[1] / "docs" / "two-lora-cells.json"
SCORES = ("identity", "motion", "identity_top1", "motion_top1")


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
    results = read_results(arguments.results) if arguments.results else read_cells(CELLS, part)
    if arguments.write:
        write_cells(arguments.write, part, results, SCORES)
    chosen = [result for result in results if arguments.seeds is None or result["seed"] in arguments.seeds]
    print("\n".join(table(cells_of(chosen), arguments.against)))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
