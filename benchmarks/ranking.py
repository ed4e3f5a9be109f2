"""Prints the fusion benchmark's table from the scores in docs/fusion-cells.json, and draws docs/ranking.png.

python benchmarks/ranking.py --seeds 0 --methods full-finetune mixed-lora sum ours
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dualreal_core.bench.plot import ranking_plot, write_png
from dualreal_core.bench.registry import REFERENCES
from dualreal_core.bench.report import FUSION, table
from dualreal_core.bench.summary import summarise
from dualreal_core.errors import InputError

DOCS = Path(__file__).resolve().parents[1] / "docs"
RANKED = (
    "full-finetune", "mixed-lora", "sum", "sum-scheduled", "motiondirector",
    "identity-first", "motion-first", "paper", "paper-guided", "ours",
)  # fmt: skip


def main() -> None:
    """Reads, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", metavar="METHOD", default=RANKED, help="the references are always added")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="S", default=[0])
    parser.add_argument("--out", type=Path, default=DOCS / "ranking.png")
    arguments = parser.parse_args()
    results = json.loads((DOCS / "fusion-cells.json").read_text(encoding="utf-8"))
    chosen = [one for one in results if one["method"] in (*REFERENCES, *arguments.methods) and one["seed"] in arguments.seeds]
    summaries = summarise(chosen)
    print("\n".join(table([(summary.title, summary.estimates) for summary in summaries], FUSION)))
    write_png(arguments.out, ranking_plot(summaries, "What each way to fuse keeps"))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
