"""`dualreal bench`: the method against others, with exact scores, on the embedded base."""

from __future__ import annotations

import argparse
import math
from itertools import product

from tqdm import tqdm

from ..bench.benchmark import Benchmark
from ..bench.experiment import TOY_RECIPE
from ..bench.plot import new_figure
from ..bench.registry import METHODS, QUICK_METHODS, QUICK_TWO_LORA_ROWS, REFERENCES, TWO_LORA_ROWS, find_method
from ..bench.report import write_report
from ..bench.request_sets import ALL_REQUESTS
from ..bench.results import Case, Protocol
from ..errors import InputError
from ..files.locks import exclusive_lock
from ..toyworld.figures import FRESH_FIGURES, TEST_IDENTITIES, TUNING_IDENTITIES
from ..toyworld.paths import FRESH_MOTIONS, TEST_MOTIONS, TUNING_MOTIONS
from ..toyworld.trial import Trial
from ..training.recipes import read_recipe, with_train
from .arguments.bench import DEFAULT_SEEDS


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
    write_report(benchmark, arguments.against)
    text = (arguments.out / "report.md").read_text(encoding="utf-8")
    print(text[: text.index("## Methods")].strip())
    print(f"\nlook at {arguments.out / 'report.md'} and {arguments.out / 'sheets'}")


def _protocol(arguments: argparse.Namespace) -> Protocol:
    for name in ("steps", "sampling_steps", "workers"):
        value, least = getattr(arguments, name), 4 if name == "steps" else 1
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}.")
    recipe = TOY_RECIPE if arguments.config is None else read_recipe(arguments.config, TOY_RECIPE)
    if arguments.guidance is not None and not 0 <= arguments.guidance < math.inf:
        raise InputError(f"--guidance is {arguments.guidance:g}; it must be 0 or more, and finite.")
    if "fused" not in arguments.asks:
        raise InputError("--asks leaves out fused, from which retention is measured: add it.")
    precision = "bf16" if arguments.benchmark == "two-loras" else "fp32"
    asks = tuple(name for name in ALL_REQUESTS if name in arguments.asks)
    return Protocol(
        with_train(recipe, steps=arguments.steps), arguments.sampling_steps, precision=precision, asks=asks, guidance=arguments.guidance
    )


def _cases(arguments: argparse.Namespace) -> list[Case]:
    """Every method on every figure, motion and seed.

    Raises:
        InputError: an unknown method, figure or motion, or no seed.
    """
    every, quick = (TWO_LORA_ROWS, QUICK_TWO_LORA_ROWS) if arguments.benchmark == "two-loras" else (METHODS, QUICK_METHODS)
    wanted = [find_method(name) for name in arguments.methods or (quick if arguments.quick else every)]
    if arguments.variants:
        wanted = [one for method in wanted for one in (method, *method.variants())]
    names = list(dict.fromkeys([*REFERENCES, *(method.name for method in wanted)]))
    defaults = (TEST_IDENTITIES, TEST_MOTIONS)
    if arguments.tuning:
        defaults = (TUNING_IDENTITIES, TUNING_MOTIONS)
    elif arguments.fresh:
        defaults = (list(FRESH_FIGURES), list(FRESH_MOTIONS))
    identities, motions = (
        given or (default[:1] if arguments.quick else default)
        for given, default in zip((arguments.identities, arguments.motions), defaults, strict=True)
    )
    seeds = arguments.seed or range(arguments.seeds if arguments.seeds is not None else 1 if arguments.quick else DEFAULT_SEEDS)
    if not seeds:
        raise InputError(f"--seeds is {arguments.seeds}; it must be at least 1.")
    return [Case(name, Trial(*place)) for place in product(identities, motions, seeds) for name in names]
