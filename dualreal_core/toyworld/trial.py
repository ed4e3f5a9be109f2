"""One identity and one motion of the toy world that the base never saw: reference files, prompts, and exact scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..video import write_gif, write_png
from . import world
from .figures import FIGURES, SPRITE_CELLS
from .paths import MOTIONS
from .scores import named_sprites, score_identity, score_motion, templates

PHOTO_CELLS = 48
"""Photos are larger than a frame by half, so that views of a frame's size can be cut from them."""
VIEW_MARGIN = PHOTO_CELLS / world.FRAME_CELLS - 1
FPS = 10.0
TRIGGER = "*"
SUBJECT = f"a figure {TRIGGER}"
NUM_CLIPS = 6


@dataclass(frozen=True)
class Trial:
    """A held-out figure, a held-out motion, and the seed that draws their photos and clips."""

    identity: str
    motion: str
    seed: int = 0

    def __post_init__(self) -> None:
        held_out = [name for name, motion in MOTIONS.items() if not motion.is_base]
        if self.identity not in FIGURES:
            raise InputError(f"There is no figure {self.identity!r}: choose one of {', '.join(FIGURES)}.")
        if self.motion not in held_out:
            raise InputError(f"There is no new motion {self.motion!r}: choose one of {', '.join(held_out)}.")

    @property
    def prompts(self) -> list[str]:
        """What a fused video is asked for, once per background."""
        return [world.caption(SUBJECT, self.motion, background) for background in world.BACKGROUNDS]

    def write_photos(self, folder: Path) -> None:
        """Five photos of the figure with captions, one per background."""
        generator = torch.Generator().manual_seed(self.seed)
        slack = PHOTO_CELLS - world.FRAME_CELLS
        color, covered = FIGURES[self.identity].sprite()
        for background, rgb in world.BACKGROUNDS.items():
            photo = torch.tensor(rgb, dtype=torch.uint8).repeat(PHOTO_CELLS, PHOTO_CELLS, 1)
            span = PHOTO_CELLS - 2 * slack - SPRITE_CELLS + 1
            y, x = (slack + torch.randint(span, (2,), generator=generator)).tolist()
            photo[y : y + SPRITE_CELLS, x : x + SPRITE_CELLS][covered] = color[covered]
            write_png(folder / f"{background}.png", photo.movedim(-1, 0).float() / 127.5 - 1)
            (folder / f"{background}.txt").write_text(world.caption(SUBJECT, None, background), encoding="utf-8")

    def write_clips(self, folder: Path) -> None:
        """Six clips of other subjects that perform the motion, with captions."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        looks, backgrounds = world.all_looks(), list(world.BACKGROUNDS)
        for index in range(NUM_CLIPS):
            look = looks[int(torch.randint(len(looks), (), generator=generator))]
            background = backgrounds[int(torch.randint(len(backgrounds), (), generator=generator))]
            frames = world.draw_clip(look, self.motion, background, generator)
            write_gif(folder / f"{index}.gif", frames.movedim(-1, 1).float() / 127.5 - 1, FPS, enlarges=False)
            (folder / f"{index}.txt").write_text(world.caption(look.phrase, self.motion, background), encoding="utf-8")

    def score(self, videos: list[torch.Tensor]) -> dict[str, float]:
        """Mean identity and motion score of videos, each (F, 3, 32, 32) in [-1, 1], and the shares of top-1 hits."""
        sprites = named_sprites()
        bank, target = templates(sprites), sprites.index(FIGURES[self.identity])
        identity = [score_identity(video, bank, target) for video in videos]
        motion = [score_motion(video, self.motion) for video in videos]
        count = len(videos)
        return {
            "identity": sum(score.mean for score in identity) / count,
            "motion": sum(score.score for score in motion) / count,
            "identity_top1": sum(score.best == target for score in identity) / count,
            "motion_top1": sum(score.best == self.motion for score in motion) / count,
        }


def retention(fused: float, base: float, single: float) -> float | None:
    """(fused - base) / (single - base): 0 is lost, 1 is lossless; None where the side alone is no better than the base."""
    return None if single <= base else (fused - base) / (single - base)
