"""`dualreal inspect`: what is in a pair file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..storage.inspection import describe, lines

HELP = "show what a pair file, a LoRA or a checkpoint of the paper's code holds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, --json."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints the description."""
    description = describe(arguments.file)
    print(json.dumps(description, indent=1) if arguments.json else "\n".join(lines(description)))
