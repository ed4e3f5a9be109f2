"""How much of an identity and of a motion survives their fusion, over held-out pairs and seeds of the toy world.

    python benchmarks/fusion.py --out build/fusion                       # the figures of the README
    python benchmarks/fusion.py --out build/tuning --tuning --seeds 1    # the pairs settings were chosen on

Retention is (fused - base) / (single side - base): 0 lost, 1 as good as the side trained alone. Every competitor gets
the same number of steps per side. A cell that is done is not done again; `--workers` processes use one thread each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from dualreal_core.atomic import atomic_path
from dualreal_core.bases import load_base
from dualreal_core.combine import combine
from dualreal_core.recipes import PUBLISHED, Recipe, read_recipe, with_train
from dualreal_core.toyworld.experiment import STEPS, TOY_RECIPE, evaluate, load_trial, retentions, train_joint, train_side
from dualreal_core.toyworld.figures import TEST_IDENTITIES, TUNING_IDENTITIES
from dualreal_core.toyworld.paths import TEST_MOTIONS, TUNING_MOTIONS
from dualreal_core.toyworld.trial import Trial

COMPETITORS = ("base", "identity", "motion", "sum", "fused")


def run_cell(out: Path, identity: str, motion: str, seed: int, recipe: Recipe) -> dict:
    """Trains and scores one identity, motion and seed; results of earlier calls are reused."""
    torch.set_num_threads(1)
    result_file = out / f"{identity}-{motion}-{seed}.json"
    if result_file.exists():
        return json.loads(result_file.read_text(encoding="utf-8"))
    base, trial = load_base("toyworld"), Trial(identity, motion, seed)
    recipe = with_train(recipe, seed=seed)
    folder = out / "trials" / f"{identity}-{motion}-{seed}"
    data = load_trial(base, trial, recipe, folder)
    sides = out / "sides"
    alone = {
        "identity": train_side(base, data, recipe, "identity", sides / f"{identity}-{seed}"),
        "motion": train_side(base, data, recipe, "motion", sides / f"{motion}-{seed}"),
    }
    pairs = {"base": None, **alone, "sum": combine(alone["identity"], alone["motion"])}
    pairs["fused"] = train_joint(base, data, recipe, folder / "joint")
    scored = {name: evaluate(base, trial, pair, folder) for name, pair in pairs.items()}
    result = {
        "identity": identity,
        "motion": motion,
        "seed": seed,
        "scores": {name: side.scores for name, side in scored.items()},
        "retention": {name: retentions(scored, name) for name in ("sum", "fused")},
    }
    with atomic_path(result_file) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def train_alone(out: Path, role: str, identity: str, motion: str, seed: int, recipe: Recipe) -> None:
    """One side that several cells share."""
    torch.set_num_threads(1)
    base, trial = load_base("toyworld"), Trial(identity, motion, seed)
    recipe = with_train(recipe, seed=seed)
    name = identity if role == "identity" else motion
    data = load_trial(base, trial, recipe, out / "trials" / f"{identity}-{motion}-{seed}")
    train_side(base, data, recipe, role, out / "sides" / f"{name}-{seed}")


def table(results: list[dict]) -> list[str]:
    """Mean and standard deviation over the cells, as Markdown."""
    lines = ["| competitor | identity | motion | retention of identity | retention of motion |", "| --- | --- | --- | --- | --- |"]
    for name in COMPETITORS:
        cells = [_spread([result["scores"][name][role] for result in results]) for role in ("identity", "motion")]
        kept = [
            _spread([result["retention"][name][f"retention_{role}"] for result in results]) if name in ("sum", "fused") else ""
            for role in ("identity", "motion")
        ]
        lines.append(f"| {name} | " + " | ".join(cells + kept) + " |")
    return lines


def _spread(values: list[float | None]) -> str:
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Runs all cells and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tuning", action="store_true", help="use the tuning identities and motions")
    parser.add_argument("--published", action="store_true", help="the paper's pair and recipe, at the same learning rate and steps")
    parser.add_argument("--config", type=Path, help="TOML file with changes of the recipe")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    recipe = TOY_RECIPE
    if arguments.published:
        train = {name: getattr(TOY_RECIPE.train, name) for name in ("learning_rate", "warmup_steps", "identity_batch", "motion_batch")}
        recipe = with_train(PUBLISHED, **train)
    if arguments.config is not None:
        recipe = read_recipe(arguments.config, recipe)
    recipe = with_train(recipe, steps=arguments.steps)
    identities, motions = (TUNING_IDENTITIES, TUNING_MOTIONS) if arguments.tuning else (TEST_IDENTITIES, TEST_MOTIONS)
    seeds = range(arguments.seeds)
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        shared = [("identity", name, motions[0], seed) for name, seed in product(identities, seeds)]
        shared += [("motion", identities[0], name, seed) for name, seed in product(motions, seeds)]
        for future in [pool.submit(train_alone, arguments.out, *job, recipe) for job in shared]:
            future.result()
        cells = [pool.submit(run_cell, arguments.out, *cell, recipe) for cell in product(identities, motions, seeds)]
        results = []
        for cell in cells:
            results.append(cell.result())
            last = results[-1]
            kept = {name: {role: value and round(value, 2) for role, value in kept.items()} for name, kept in last["retention"].items()}
            print(last["identity"], last["motion"], last["seed"], kept, flush=True)
    lines = table(results)
    print("\n".join(lines))
    with atomic_path(arguments.out / "table.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
