"""Does a trained StageBlender tell photos from clips? The identity's share of the weights, for a still and a clip of one caption.

python benchmarks/shortcut.py --runs FOLDER --method paper-tuned --identities vex --motions zigzag

FOLDER is that of `dualreal bench fusion`, which has trained the pairs. A still and a clip show the figure doing the motion, as it
would be right, with the same caption, at the same places in denoising; 'held' is the still repeated over the frames of a clip.
The StageBlender does not read the prompt, and half of the weights is where it started.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean

import torch

from dualreal_core.bases import Base, load_base
from dualreal_core.bench.benchmark import Benchmark
from dualreal_core.bench.registry import find_method
from dualreal_core.errors import InputError
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import AdapterPair
from dualreal_core.toyworld import world
from dualreal_core.toyworld.trial import SUBJECT, Trial

STAGES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
SHOWN = ("still", "held", "clip")
NUM_DRAWS = 5


@torch.no_grad()
def shares(base: Base, pair: AdapterPair, trial: Trial, stage: float) -> Iterator[tuple[str, float]]:
    """What is shown, and the identity's share of the weights in the mean over groups; `NUM_DRAWS` times of each."""
    left = 1 - stage
    sigma = left * base.objective.shift / (1 + (base.objective.shift - 1) * left)
    generator = torch.Generator().manual_seed(trial.seed)
    backgrounds = list(world.BACKGROUNDS)
    for number in range(NUM_DRAWS):
        background = backgrounds[number % len(backgrounds)]
        frames = world.draw_clip(trial.figure, trial.motion, background, generator).movedim(-1, 1).float() / 127.5 - 1  # (F, 3, 32, 32)
        with base.encoders():
            clip = base.encode_frames(frames)[None]  # (1, C, f, h, w)
            text = base.batch_texts([base.encode_text(world.caption(SUBJECT, trial.motion, background))])
        still = clip[:, :, :1]
        for shown, latents in zip(SHOWN, (still, still.expand_as(clip), clip), strict=True):
            noise, timestep = torch.randn(latents.shape, generator=generator), torch.full((1,), 1000 * sigma)
            with Attachment(base.transformer, pair) as attachment:
                attachment.move_to(stage, sigma)
                base.predict(base.objective.add_noise(latents, noise, timestep), timestep, text)
                weights = attachment.call.weights[0]  # (G, 2)
            yield shown, float((weights[:, 0] / weights.sum(1)).mean())


def main() -> None:
    """Prints a table of the mean over the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--method", required=True)
    parser.add_argument("--identities", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--motions", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    benchmark, base = Benchmark(arguments.runs), load_base("toyworld")
    recipe, found = benchmark.protocol.recipe, {}
    for identity, motion in product(arguments.identities, arguments.motions):
        trial = Trial(identity, motion, arguments.seed)
        (run,) = find_method(arguments.method).runs(trial, recipe)
        if not benchmark.runs.is_done(run):
            continue
        pair = benchmark.runs.load(run)
        if pair.controller is None:
            raise InputError(f"{arguments.method} has no StageBlender: name a method that has one.")
        for stage in STAGES:
            for shown, share in shares(base, pair, trial, stage):
                found.setdefault((shown, stage), {}).setdefault(f"{identity}-{motion}", []).append(share)
    if not found:
        raise InputError(f"{arguments.runs} has no such run: train it with dualreal bench fusion.")
    trials = list(next(iter(found.values())))
    print(f"{arguments.method}, {', '.join(trials)}: the identity's share\n")
    print(f"| done of denoising | {' | '.join(f'{stage:.0%}' for stage in STAGES)} |\n| --- |{' ---: |' * len(STAGES)}")
    for shown in SHOWN:
        means = [fmean(fmean(found[shown, stage][trial]) for trial in trials) for stage in STAGES]
        print(f"| {shown} | {' | '.join(f'{mean:.2f}' for mean in means)} |")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
