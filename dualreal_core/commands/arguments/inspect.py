"""Arguments of `dualreal inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --json."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")


INSPECT = Command("inspect", "show what a pair file, a LoRA or a checkpoint of the paper's code holds", add_arguments)
