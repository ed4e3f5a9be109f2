"""Prints whether the embedded base draws two subjects where two are asked for: likeness of each in its best place of each frame.

python benchmarks/two_subjects.py
"""

from __future__ import annotations

from itertools import pairwise

import torch

from dualreal_core.bases import load_base
from dualreal_core.bench.experiment import sample_videos
from dualreal_core.bench.prompts import NEITHER
from dualreal_core.sampling import default_sampling
from dualreal_core.toyworld import world
from dualreal_core.toyworld.scores import sprite_bank, sprite_likeness
from dualreal_core.toyworld.trial import Trial

IS_THERE = 0.85
"""A likeness above it shows the sprite: one that was asked for alone has .92, another one in its place .50."""


def main() -> None:
    """Samples and prints."""
    base, sprites = load_base("toyworld"), sprite_bank().sprites
    pairs = [(first, other) for first, other in pairwise((*NEITHER, NEITHER[0]))]
    alone = [world.caption(look.phrase, motion, background) for (look, motion, background), _ in pairs]
    together = [world.caption(f"{look.phrase} and {other.phrase}", motion, background) for (look, motion, background), (other, *_) in pairs]
    videos = sample_videos(base, Trial("tam", "box"), [*alone, *together], default_sampling(base))
    likeness = torch.stack([sprite_likeness(video) for video in videos])  # (V, F, K)
    asked = torch.tensor([[sprites.index(look), sprites.index(other)] for (look, *_), (other, *_) in pairs])
    for name, of in (("one asked for", likeness[: len(pairs)]), ("two asked for", likeness[len(pairs) :])):
        first, second = (of.gather(2, asked[:, None, side, None].expand(-1, of.shape[1], 1))[..., 0] for side in range(2))
        both = (torch.minimum(first, second) > IS_THERE).float().mean()
        print(f"{name}: likeness of the first {first.mean():.2f}, of the second {second.mean():.2f}; frames that show both {both:.0%}")


if __name__ == "__main__":
    main()
