"""`dualreal bench`: the method against others, with exact scores, on the embedded base."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from tqdm import tqdm

from ..bench.benchmark import Benchmark
from ..bench.experiment import STEPS, TOY_RECIPE
from ..bench.plot import new_figure
from ..bench.registry import METHODS, QUICK_METHODS, REFERENCES, find_method
from ..bench.report import write_report
from ..bench.results import Case, Protocol
from ..errors import InputError
from ..files.locks import exclusive_lock
from ..toyworld.figures import TEST_IDENTITIES, TUNING_IDENTITIES
from ..toyworld.paths import TEST_MOTIONS, TUNING_MOTIONS
from ..toyworld.trial import Trial
from ..training.recipes import read_recipe, with_train

HELP = "measure fusion against other methods on the embedded base"
FUSION_HELP = "every way to train and fuse, on identities x motions x seeds; what is done is kept, killed runs continue"
INTERRUPTED = "what is done is kept, repeat the command to continue"
DEFAULT_SEEDS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark and its options."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    fusion = benchmarks.add_parser("fusion", help=FUSION_HELP, description=FUSION_HELP)
    fusion.add_argument("--out", type=Path, required=True, help="folder for runs, results and report")
    methods = f"of {', '.join(METHODS)} (default: all); {', '.join(REFERENCES)} are always added"
    fusion.add_argument("--methods", nargs="+", metavar="METHOD", help=methods)
    fusion.add_argument("--identities", nargs="+", metavar="NAME", help=f"figures (default: {' '.join(TEST_IDENTITIES)})")
    fusion.add_argument("--motions", nargs="+", metavar="NAME", help=f"motions (default: {' '.join(TEST_MOTIONS)})")
    fusion.add_argument("--tuning", action="store_true", help="take the figures and motions that settings are chosen on")
    fusion.add_argument("--variants", action="store_true", help="add each method with the other values of its tuned settings")
    seeds = fusion.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, metavar="N", help=f"seeds 0 to N - 1 (default: {DEFAULT_SEEDS})")
    seeds.add_argument("--seed", type=int, action="append", metavar="S", help="this seed; may be repeated")
    fusion.add_argument("--quick", action="store_true", help=f"one figure, motion and seed, methods {', '.join(QUICK_METHODS)}")
    fusion.add_argument("--report-only", action="store_true", help="write the report of the results that are there")
    steps = f"training steps of every method; a side alone gets half (default: {STEPS})"
    fusion.add_argument("--steps", type=int, default=STEPS, help=steps)
    fusion.add_argument("--sampling-steps", type=int, metavar="N", help="denoising steps of each video (default: the base's)")
    fusion.add_argument("--workers", type=int, default=2, metavar="N", help="processes, of one thread each (default: 2)")
    fusion.add_argument("--config", type=Path, help="TOML file with changes of our recipe")


def run(arguments: argparse.Namespace) -> None:
    """Trains, samples and measures what is missing, then writes the report."""
    new_figure(1, 1)  # the report draws: where that cannot be done, hours of training would come before the complaint
    benchmark = Benchmark(arguments.out)
    if not arguments.report_only:
        protocol, cases = _protocol(arguments), _cases(arguments)
        with exclusive_lock(benchmark.path), tqdm(unit="job") as bar:

            def shown(name: str, num_done: int, total: int) -> None:
                bar.total = total
                bar.set_postfix_str(name, refresh=False)
                bar.update()

            benchmark.begin(protocol)
            benchmark.run(cases, protocol, arguments.workers, shown)
    write_report(benchmark)
    text = (arguments.out / "report.md").read_text(encoding="utf-8")
    print(text[: text.index("## Methods")].strip())
    print(f"\nlook at {arguments.out / 'report.md'} and {arguments.out / 'sheets'}")


def _protocol(arguments: argparse.Namespace) -> Protocol:
    for name in ("steps", "sampling_steps", "workers"):
        value, least = getattr(arguments, name), 4 if name == "steps" else 1
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}.")
    recipe = TOY_RECIPE if arguments.config is None else read_recipe(arguments.config, TOY_RECIPE)
    return Protocol(with_train(recipe, steps=arguments.steps), arguments.sampling_steps)


def _cases(arguments: argparse.Namespace) -> list[Case]:
    """Every method on every figure, motion and seed.

    Raises:
        InputError: an unknown method, figure or motion, or no seed.
    """
    wanted = [find_method(name) for name in arguments.methods or (QUICK_METHODS if arguments.quick else METHODS)]
    if arguments.variants:
        wanted = [one for method in wanted for one in (method, *method.variants())]
    names = list(dict.fromkeys([*REFERENCES, *(method.name for method in wanted)]))
    defaults = (TUNING_IDENTITIES, TUNING_MOTIONS) if arguments.tuning else (TEST_IDENTITIES, TEST_MOTIONS)
    identities, motions = (
        given or (default[:1] if arguments.quick else default)
        for given, default in zip((arguments.identities, arguments.motions), defaults, strict=True)
    )
    seeds = arguments.seed or range(arguments.seeds if arguments.seeds is not None else 1 if arguments.quick else DEFAULT_SEEDS)
    if not seeds:
        raise InputError(f"--seeds is {arguments.seeds}; it must be at least 1.")
    return [Case(name, Trial(*place)) for place in product(identities, motions, seeds) for name in names]
