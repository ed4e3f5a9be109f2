"""`dualreal bench`: the method against others, with exact scores, on the embedded base."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from tqdm import tqdm

from ..bench.cells import Cell, Protocol
from ..bench.experiment import STEPS, TOY_RECIPE
from ..bench.jobs import OnJob
from ..bench.report import write_report
from ..bench.rows import QUICK_ROWS, REFERENCES, ROWS, Subject, find_row
from ..bench.run import Folder, run_cells
from ..bench.steps import run_curves
from ..errors import InputError
from ..files.locks import exclusive_lock
from ..toyworld.figures import TEST_IDENTITIES, TUNING_IDENTITIES
from ..toyworld.paths import TEST_MOTIONS, TUNING_MOTIONS
from ..training.recipes import Recipe, read_recipe, with_train

HELP = "measure fusion against other methods on the embedded base"
FUSION_HELP = "every way to train and fuse, on identities x motions x seeds; what is done is kept, killed runs continue"
STEPS_HELP = "scores of ours and of the published recipe by training step: how many of ours reach the other's last score"
INTERRUPTED = "what is done is kept, repeat the command to continue"
DEFAULT_SEEDS = 2
NUM_POINTS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmarks and their options."""
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    fusion = benchmarks.add_parser("fusion", help=FUSION_HELP, description=FUSION_HELP)
    fusion.set_defaults(run_benchmark=run_fusion)
    fusion.add_argument("--out", type=Path, required=True, help="folder for runs, results and report")
    fusion.add_argument("--rows", nargs="+", metavar="ROW", help=f"of {', '.join(ROWS)} (default: all); reference rows are always added")
    fusion.add_argument("--identities", nargs="+", metavar="NAME", help=f"figures (default: {' '.join(TEST_IDENTITIES)})")
    fusion.add_argument("--motions", nargs="+", metavar="NAME", help=f"motions (default: {' '.join(TEST_MOTIONS)})")
    fusion.add_argument("--tuning", action="store_true", help="take the figures and motions that settings are chosen on")
    fusion.add_argument("--variants", action="store_true", help="add each row with the other values of its knob")
    seeds = fusion.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, metavar="N", help=f"seeds 0 to N - 1 (default: {DEFAULT_SEEDS})")
    seeds.add_argument("--seed", type=int, action="append", metavar="S", help="this seed; may be repeated")
    fusion.add_argument("--quick", action="store_true", help=f"one figure, motion and seed, rows {', '.join(QUICK_ROWS)}")
    fusion.add_argument("--report-only", action="store_true", help="write the report of the results that are there")
    _add_shared(fusion)
    steps = benchmarks.add_parser("steps", help=STEPS_HELP, description=STEPS_HELP)
    steps.set_defaults(run_benchmark=run_steps)
    steps.add_argument("--out", type=Path, required=True, help="folder for runs, scores and report")
    steps.add_argument("--identities", nargs="+", metavar="NAME", default=TEST_IDENTITIES[:1], help="figures (default: the first)")
    steps.add_argument("--motions", nargs="+", metavar="NAME", default=TEST_MOTIONS[:1], help="motions (default: the first)")
    steps.add_argument("--seed", type=int, action="append", metavar="S", help="this seed; may be repeated (default: 0)")
    steps.add_argument("--at", type=int, nargs="+", metavar="N", help="steps to measure after (default: every eighth of --steps)")
    _add_shared(steps)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps of every row; a side alone gets half (default: {STEPS})")
    parser.add_argument("--sampling-steps", type=int, metavar="N", help="denoising steps of each video (default: the base's)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes, of one thread each (default: 2)")
    parser.add_argument("--config", type=Path, help="TOML file with changes of our recipe")


def run(arguments: argparse.Namespace) -> None:
    """The benchmark that was named."""
    arguments.run_benchmark(arguments)


def run_fusion(arguments: argparse.Namespace) -> None:
    """Trains, samples and measures what is missing, then writes the report."""
    folder = Folder(arguments.out)
    if not arguments.report_only:
        protocol, cells = _protocol(arguments), _cells(arguments)
        with exclusive_lock(folder.path):
            folder.begin(protocol)
            with _progress() as on_job:
                run_cells(folder, cells, protocol, arguments.workers, on_job)
    write_report(folder)
    text = (arguments.out / "report.md").read_text(encoding="utf-8")
    print(text[: text.index("## Rows")].strip())
    print(f"\nlook at {arguments.out / 'report.md'} and {arguments.out / 'sheets'}")


def run_steps(arguments: argparse.Namespace) -> None:
    """Trains both recipes once per subject and measures them on the way."""
    folder, protocol = Folder(arguments.out), _protocol(arguments)
    last = arguments.steps
    points = arguments.at or sorted({max(1, last * part // NUM_POINTS) for part in range(1, NUM_POINTS + 1)})
    if not 0 < min(points) <= max(points) <= last:
        raise InputError(f"--at names {min(points)} to {max(points)} steps; they must lie between 1 and the {last} of --steps.")
    subjects = [Subject(*place) for place in product(arguments.identities, arguments.motions, arguments.seed or [0])]
    for subject in subjects:
        _ = Cell("ours", subject).trial
    with exclusive_lock(folder.path):
        folder.begin(protocol)
        with _progress() as on_job:
            lines = run_curves(folder, subjects, points, protocol, arguments.workers, on_job)
    print("\n".join(lines))


@contextmanager
def _progress() -> Iterator[OnJob]:
    with tqdm(unit="job") as bar:

        def shown(name: str, num_done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        yield shown


def _protocol(arguments: argparse.Namespace) -> Protocol:
    for name in ("steps", "sampling_steps", "workers"):
        value, least = getattr(arguments, name), 4 if name == "steps" else 1
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}.")
    return Protocol(_recipe(arguments), arguments.sampling_steps)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    recipe = TOY_RECIPE if arguments.config is None else read_recipe(arguments.config, TOY_RECIPE)
    return with_train(recipe, steps=arguments.steps)


def _cells(arguments: argparse.Namespace) -> list[Cell]:
    """Every row on every figure, motion and seed.

    Raises:
        InputError: an unknown row, figure or motion, or no seed.
    """
    wanted = [find_row(name) for name in arguments.rows or (QUICK_ROWS if arguments.quick else ROWS)]
    if arguments.variants:
        wanted = [one for row in wanted for one in (row, *row.variants())]
    names = list(dict.fromkeys([*REFERENCES, *(row.name for row in wanted)]))
    defaults = (TUNING_IDENTITIES, TUNING_MOTIONS) if arguments.tuning else (TEST_IDENTITIES, TEST_MOTIONS)
    identities, motions = (
        given or (default[:1] if arguments.quick else default)
        for given, default in zip((arguments.identities, arguments.motions), defaults, strict=True)
    )
    seeds = arguments.seed or range(arguments.seeds if arguments.seeds is not None else 1 if arguments.quick else DEFAULT_SEEDS)
    if not seeds:
        raise InputError(f"--seeds is {arguments.seeds}; it must be at least 1.")
    cells = [Cell(name, Subject(*place)) for place in product(identities, motions, seeds) for name in names]
    for cell in cells:
        _ = cell.trial  # refuses unknown figures and motions before anything is trained
    return cells
