"""The embedded base with a given first frame, held clean as Wan 2.2 5B has it: is a subject taken from it, and from the identity side?

python benchmarks/first_frame.py --out FOLDER

Likeness of the figure in the frames after the first, where that is not given, shows the figure, or hides it (the background alone).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from dualreal_core.bases.toyworld import ToyWorldBase
from dualreal_core.bench.experiment import TOY_RECIPE, load_trial, train_side
from dualreal_core.bench.recipes import STEPS, plain
from dualreal_core.method.attach import Attachment
from dualreal_core.sampling import default_sampling, sample
from dualreal_core.toyworld import world
from dualreal_core.toyworld.figures import FIGURES
from dualreal_core.toyworld.model import position_planes
from dualreal_core.toyworld.paths import BASE_MOTIONS
from dualreal_core.toyworld.scores import sprite_bank, sprite_likeness
from dualreal_core.toyworld.trial import SUBJECT, Trial

NUM_VIDEOS = 10


class GivenFrame(ToyWorldBase):
    """Attributes:
    given: latents (B, C, 1, h, w) of the first frames, None where there are none.
    has_own_timestep: the given frame is told to be clean, instead of as noisy as the others.
    """

    given: torch.Tensor | None = None
    has_own_timestep = False

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        if self.given is None:
            return super().predict(latents, timestep, text)
        rows, _, frames, height, width = latents.shape
        given = self.given.repeat(rows // len(self.given), 1, 1, 1, 1)
        planes = position_planes(frames, height, width).expand(rows, -1, -1, -1, -1)
        shown = torch.cat([torch.cat([given, latents[:, :, 1:]], dim=2), planes], dim=1)
        if self.has_own_timestep:
            timestep = timestep[:, None].repeat(1, frames)
            timestep[:, 0] = 0
            sigma, timestep = timestep[:, -1], timestep.repeat_interleave(height * width // 4, dim=1)
        else:
            sigma = timestep
        output = self.transformer(shown, timestep, text, return_dict=False)[0]
        kept = (latents[:, :, :1] - given) / (sigma / 1000).reshape(-1, 1, 1, 1, 1)
        return torch.cat([kept, output[:, :, 1:]], dim=2)


@contextmanager
def first_frames(base: GivenFrame, given: torch.Tensor | None, has_own_timestep: bool) -> Iterator[None]:
    base.given, base.has_own_timestep = given, has_own_timestep
    try:
        yield
    finally:
        base.given = None


def main() -> None:
    """Trains the identity side alone, samples, scores, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--identities", nargs="+", default=["vex", "pip"], choices=list(FIGURES))
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    base, likeness = GivenFrame(), {}
    recipe = plain(replace(TOY_RECIPE, train=replace(TOY_RECIPE.train, steps=arguments.steps)))
    for identity in arguments.identities:
        trial, folder = Trial(identity, "zigzag"), arguments.out / identity
        pair = train_side(base, load_trial(base, trial, recipe, folder), recipe, "identity", folder / "run")
        for name, values in scores(base, trial, pair).items():
            likeness.setdefault(name, []).append(values)
    print(json.dumps({name: round(sum(values) / len(values), 3) for name, values in likeness.items()}, indent=1))


@torch.no_grad()
def scores(base: GivenFrame, trial: Trial, pair: object) -> dict[str, float]:
    """Mean likeness of the figure in the frames after the first."""
    figure, generator = FIGURES[trial.identity], torch.Generator().manual_seed(trial.seed)
    target = sprite_bank().sprites.index(figure)
    backgrounds = [list(world.BACKGROUNDS)[index % len(world.BACKGROUNDS)] for index in range(NUM_VIDEOS)]
    motions = [BASE_MOTIONS[index % len(BASE_MOTIONS)] for index in range(NUM_VIDEOS)]
    found = {}
    with base.encoders():
        clips = [world.draw_clip(figure, motion, ground, generator) for motion, ground in zip(motions, backgrounds, strict=True)]
        hidden = [torch.tensor(world.BACKGROUNDS[ground], dtype=torch.uint8).expand(1, 32, 32, 3) for ground in backgrounds]
        given = {
            "not given": None,
            "shows it": torch.stack([base.encode_frames(signed(clip[:1])) for clip in clips]),
            "hides it": torch.stack([base.encode_frames(signed(frame)) for frame in hidden]),
        }
        texts = [base.encode_text(world.caption(SUBJECT, *scene)) for scene in zip(motions, backgrounds, strict=True)]
        for who, attachment in (("base", None), ("identity side", Attachment(base.transformer, pair))):
            for frame, latents in given.items():
                for own in (False, True) if frame == "shows it" else (False,):
                    with attachment or nullcontext(), first_frames(base, latents, own):
                        videos = sample(base, texts, base.encode_text(""), default_sampling(base), attachment)
                    like = [sprite_likeness(base.decode_latents(video))[1:, target].mean() for video in videos]
                    found[f"{who}, frame {frame}" + (", own timestep" if own else "")] = float(torch.stack(like).mean())
        copied = [sprite_likeness(base.decode_latents(base.encode_frames(signed(clip))))[1:, target].mean() for clip in clips]
        found["the clips themselves"] = float(torch.stack(copied).mean())
    return found


def signed(frames: torch.Tensor) -> torch.Tensor:
    """(F, H, W, 3) uint8 -> (F, 3, H, W) in [-1, 1]."""
    return frames.movedim(-1, 1).float() / 127.5 - 1


if __name__ == "__main__":
    main()
