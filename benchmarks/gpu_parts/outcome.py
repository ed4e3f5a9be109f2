"""What a part of the check found, and the file in which it says so."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

DEVICE_VARIABLE = "DUALREAL_TEST_DEVICE"


@dataclass
class Outcome:
    """Assertions and figures of a part.

    Attributes:
        checks: name, whether it held (None: it was not tried), and what was found.
        rows: figures by column, a table in the order in which they were taken.
    """

    checks: list[dict[str, object]] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)

    def check(self, name: str, held: bool | None, found: str = "") -> None:
        """Writes an assertion down; the part goes on."""
        self.checks.append({"name": name, "held": held, "found": found})


def run_part(work: Callable[[Outcome, argparse.Namespace], None], doc: str | None, names: tuple[str, ...] = ()) -> None:
    """Runs a part as a program: PROGRAM [NAME] --out FILE --device cuda|cpu [--tiny]. What was found before an error is kept."""
    parser = argparse.ArgumentParser(description=doc)
    if names:
        parser.add_argument("name", choices=names)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda", help="what it runs on (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="sizes for tests; figures mean nothing then")
    arguments = parser.parse_args()
    os.environ[DEVICE_VARIABLE] = arguments.device
    arguments.device = torch.device(arguments.device)
    outcome = Outcome()
    try:
        work(outcome, arguments)
    finally:
        arguments.out.write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
