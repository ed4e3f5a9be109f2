"""Arguments of `dualreal demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...bench.recipes import STEPS
from ...toyworld.figures import FIGURES
from ...toyworld.paths import MOTIONS
from ..description import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    new_motions = [name for name, motion in MOTIONS.items() if not motion.is_base]
    parser.add_argument("--identity", default="vex", help=f"figure the base never saw: {', '.join(FIGURES)} (default: vex)")
    parser.add_argument("--motion", default="figure-eight", help=f"motion it never saw: {', '.join(new_motions)} (default: figure-eight)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"joint training steps; each side alone gets half (default: {STEPS})")
    parser.add_argument("--out", type=Path, default=Path("dualreal-demo"), help="folder for all results (default: dualreal-demo)")


DEMO = Command(
    "demo",
    "teach the embedded base a new identity and a new motion, and fuse them",
    add_arguments,
    "what was trained is kept, repeat the command to continue",
)
