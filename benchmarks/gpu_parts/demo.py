"""The demo of the embedded model, whose scores are to be those of docs/cli.md."""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from outcome import Outcome, run_part

from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import STEPS, TOY_RECIPE, load_trial, sample_videos, train_joint
from dualreal_core.commands.demo import ROWS
from dualreal_core.sampling import default_sampling
from dualreal_core.toyworld.trial import Trial
from dualreal_core.training.recipes import with_train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
TRIAL = Trial("vex", "figure-eight")
NOISE = {"identity": 0.06, "motion": 0.12}
"""Other rounding makes another pair; scores of equal runs with other seeds lie as far apart."""


def expected_scores(name: str) -> dict[str, float]:
    """A row of the page's table: identity and motion."""
    found = re.search(rf"^\| {re.escape(ROWS[name])} \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(zip(("identity", "motion"), map(float, found.groups()), strict=True))


def main(outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Trains both sides jointly, samples with the base and with the pair, and compares."""
    begun = time.perf_counter()
    base = load_base("toyworld", device=str(arguments.device))
    recipe = with_train(TOY_RECIPE, steps=2 if arguments.tiny else STEPS)
    with tempfile.TemporaryDirectory() as place:
        data = load_trial(base, TRIAL, recipe, Path(place) / "references")
        loaded = time.perf_counter()
        pair = train_joint(base, data, recipe, Path(place) / "run")
    trained = time.perf_counter()
    scores, prompts, settings = {}, TRIAL.prompts, default_sampling(base)
    if arguments.tiny:
        prompts, settings = prompts[:1], replace(settings, num_steps=2)
    for name, used in (("base", None), ("fused", pair)):
        videos = [video.cpu() for video in sample_videos(base, TRIAL, prompts, settings, used)]
        outcome.check(f"{ROWS[name]}: videos are of numbers", all(bool(video.isfinite().all()) for video in videos))
        scores[name] = TRIAL.score(videos)
    sampled = time.perf_counter()
    for name, found in scores.items():
        expected = expected_scores(name)
        for side, noise in NOISE.items() if not arguments.tiny else ():
            is_near = abs(found[side] - expected[side]) <= noise
            outcome.check(f"{ROWS[name]}: {side} is {expected[side]} within {noise}", is_near, f"{found[side]:.3f}")
        shown = {"video of": ROWS[name], **{side: round(found[side], 3) for side in NOISE}}
        outcome.rows.append({**shown, **{f"{side} in docs/cli.md": expected[side] for side in NOISE}})
    for what, seconds in (
        ("files and latents", loaded - begun),
        (f"training, {recipe.train.steps} steps", trained - loaded),
        ("videos, two sets", sampled - trained),
    ):
        outcome.rows.append({"demo": what, "s": round(seconds, 1)})
    outcome.check("the pair is where the base is", {weight.device.type for weight in pair.parameters()} == {arguments.device.type})


if __name__ == "__main__":
    run_part(main, __doc__)
