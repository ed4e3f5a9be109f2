"""`dualreal inspect`: what is in a pair file."""

from __future__ import annotations

import argparse
import json

from ..storage.inspection import describe, lines


def run(arguments: argparse.Namespace) -> None:
    """Prints the description."""
    description = describe(arguments.file)
    print(json.dumps(description, indent=1) if arguments.json else "\n".join(lines(description)))
