"""Arguments of `dualreal bench`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...bench.recipes import STEPS
from ...bench.registry import METHODS, QUICK_METHODS, QUICK_TWO_LORA_ROWS, REFERENCES, TWO_LORA_ROWS
from ...bench.request_sets import ALL_REQUESTS
from ...toyworld.figures import TEST_IDENTITIES
from ...toyworld.paths import TEST_MOTIONS
from ..description import Command

FUSION_HELP = "every way to train and fuse, on identities x motions x seeds; what is done is kept, killed runs continue"
TWO_LORAS_HELP = "every way to join two LoRAs that were trained apart; as fusion, on the fused prompts alone, sampled in bf16"
DEFAULT_SEEDS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmarks and their options."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    _add_options(benchmarks.add_parser("fusion", help=FUSION_HELP, description=FUSION_HELP), METHODS, QUICK_METHODS, ALL_REQUESTS)
    two_loras = benchmarks.add_parser("two-loras", help=TWO_LORAS_HELP, description=TWO_LORAS_HELP)
    _add_options(two_loras, TWO_LORA_ROWS, QUICK_TWO_LORA_ROWS, ALL_REQUESTS[:1])


def _add_options(
    fusion: argparse.ArgumentParser, all_methods: Iterable[str], quick_methods: Iterable[str], default_asks: Sequence[str]
) -> None:
    fusion.add_argument("--out", type=Path, required=True, help="folder for runs, results and report")
    methods = f"of {', '.join(all_methods)} (default: all); {', '.join(REFERENCES)} are always added"
    fusion.add_argument("--methods", nargs="+", metavar="METHOD", help=methods)
    fusion.add_argument("--identities", nargs="+", metavar="NAME", help=f"figures (default: {' '.join(TEST_IDENTITIES)})")
    fusion.add_argument("--motions", nargs="+", metavar="NAME", help=f"motions (default: {' '.join(TEST_MOTIONS)})")
    sets = fusion.add_mutually_exclusive_group()
    sets.add_argument("--tuning", action="store_true", help="take the figures and motions that settings are chosen on")
    sets.add_argument("--fresh", action="store_true", help="take figures and motions that nothing was ever chosen on")
    fusion.add_argument("--variants", action="store_true", help="add each method with the other values of its tuned settings")
    seeds = fusion.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, metavar="N", help=f"seeds 0 to N - 1 (default: {DEFAULT_SEEDS})")
    seeds.add_argument("--seed", type=int, action="append", metavar="S", help="this seed; may be repeated")
    fusion.add_argument("--quick", action="store_true", help=f"one figure, motion and seed, methods {', '.join(quick_methods)}")
    fusion.add_argument("--report-only", action="store_true", help="write the report of the results that are there")
    steps = f"training steps of every method; a side alone gets half (default: {STEPS})"
    fusion.add_argument("--steps", type=int, default=STEPS, help=steps)
    fusion.add_argument("--sampling-steps", type=int, metavar="N", help="denoising steps of each video (default: the base's)")
    fusion.add_argument("--guidance", type=float, metavar="SCALE", help="of classifier-free guidance; 1: none (default: the base's)")
    asks = f"sets of prompts, of {', '.join(ALL_REQUESTS)} (default: {'all' if len(default_asks) > 1 else default_asks[0]})"
    fusion.add_argument("--asks", nargs="+", choices=ALL_REQUESTS, default=default_asks, metavar="SET", help=asks)
    fusion.add_argument("--against", default="ours", metavar="METHOD", help="what the report compares each method with (default: ours)")
    fusion.add_argument("--workers", type=int, default=2, metavar="N", help="processes, of one thread each (default: 2)")
    fusion.add_argument("--config", type=Path, help="TOML file with changes of our recipe")


BENCH = Command(
    "bench",
    "measure fusion against other methods on the embedded base",
    add_arguments,
    "what is done is kept, repeat the command to continue",
)
