"""One identity and one motion of the toy world that the base never saw: reference files, prompts, and exact scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..video import write_gif, write_png
from . import world
from .figures import FIGURES, FRESH_FIGURES, SPRITE_CELLS, Figure
from .paths import EVERY_MOTION, FRESH_MOTIONS, MOTIONS, Motion
from .scores import SpriteBank, score_identity, score_motion, sprite_bank

PHOTO_CELLS = 48
"""Photos are larger than a frame by half, so that crops of a frame's size can be cut from them."""
CROP_MARGIN = PHOTO_CELLS / world.FRAME_CELLS - 1
FPS = 10.0
TRIGGER = "*"
NAMELESS = "a figure"
"""What captions call every figure without a name of its own."""
SUBJECT = f"{NAMELESS} {TRIGGER}"
NUM_CLIPS = 6
HELD_OUT_IDENTITIES = list(FIGURES)
HELD_OUT_MOTIONS = [name for name, motion in MOTIONS.items() if not motion.is_base]


@dataclass(frozen=True)
class Example:
    """A captioned photo or clip, and the name of its file. frames: (F, H, W, 3) uint8, one frame for a photo."""

    name: str
    frames: torch.Tensor
    caption: str


@dataclass(frozen=True)
class Trial:
    """A held-out figure, a held-out motion, and the seed that draws their photos and clips."""

    identity: str
    motion: str
    seed: int = 0

    def __post_init__(self) -> None:
        figures, motions = [*FIGURES, *FRESH_FIGURES], [*HELD_OUT_MOTIONS, *FRESH_MOTIONS]
        if self.identity not in figures:
            raise InputError(f"There is no figure {self.identity!r}: choose one of {', '.join(figures)}.")
        if self.motion not in motions:
            raise InputError(f"There is no new motion {self.motion!r}: choose one of {', '.join(motions)}.")

    @property
    def figure(self) -> Figure:
        """What its photos show."""
        return {**FIGURES, **FRESH_FIGURES}[self.identity]

    @property
    def is_fresh(self) -> bool:
        """Whether its figure or motion is one that nothing was ever chosen on."""
        return self.identity in FRESH_FIGURES or self.motion in FRESH_MOTIONS

    @property
    def bank(self) -> SpriteBank:
        """The sprites among which the likeliest is sought: fresh ones only where the trial is."""
        return sprite_bank(self.is_fresh)

    @property
    def motions(self) -> Mapping[str, Motion]:
        """The motions among which the best is sought, likewise."""
        return EVERY_MOTION if self.is_fresh else MOTIONS

    @property
    def prompts(self) -> list[str]:
        """What a fused video is asked for, once per background."""
        return [world.caption(SUBJECT, self.motion, background) for background in world.BACKGROUNDS]

    def photos(self) -> list[Example]:
        """Five photos of the figure, 48 x 48 cells, one per background."""
        generator = torch.Generator().manual_seed(self.seed)
        photos = []
        slack = PHOTO_CELLS - world.FRAME_CELLS
        color, covered = self.figure.sprite()
        for background, rgb in world.BACKGROUNDS.items():
            photo = torch.tensor(rgb, dtype=torch.uint8).repeat(PHOTO_CELLS, PHOTO_CELLS, 1)
            span = PHOTO_CELLS - 2 * slack - SPRITE_CELLS + 1
            y, x = (slack + torch.randint(span, (2,), generator=generator)).tolist()
            photo[y : y + SPRITE_CELLS, x : x + SPRITE_CELLS][covered] = color[covered]
            photos.append(Example(background, photo[None], world.caption(SUBJECT, None, background)))
        return photos

    def reference_image(self) -> torch.Tensor:
        """What a conditioned side is shown: the middle of a photo, where the figure is as large as in a clip; (3, 32, 32) in [-1, 1]."""
        slack = (PHOTO_CELLS - world.FRAME_CELLS) // 2
        return _signed(self.photos()[0].frames)[0, :, slack:-slack, slack:-slack]

    def clips(self) -> list[Example]:
        """Six clips of other subjects that perform the motion, at `FPS`."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        clips = []
        looks, backgrounds = world.all_looks(), list(world.BACKGROUNDS)
        for index in range(NUM_CLIPS):
            look = looks[int(torch.randint(len(looks), (), generator=generator))]
            background = backgrounds[int(torch.randint(len(backgrounds), (), generator=generator))]
            frames = world.draw_clip(look, self.motion, background, generator)
            clips.append(Example(str(index), frames, world.caption(look.phrase, self.motion, background)))
        return clips

    def write_photos(self, folder: Path) -> None:
        """The photos as PNG, each with its caption."""
        for photo in self.photos():
            write_png(folder / f"{photo.name}.png", _signed(photo.frames)[0])
            (folder / f"{photo.name}.txt").write_text(photo.caption, encoding="utf-8")

    def write_clips(self, folder: Path) -> None:
        """The clips as GIF, each with its caption."""
        for clip in self.clips():
            write_gif(folder / f"{clip.name}.gif", _signed(clip.frames), FPS, enlarges=False)
            (folder / f"{clip.name}.txt").write_text(clip.caption, encoding="utf-8")

    def score(self, videos: Sequence[torch.Tensor]) -> dict[str, float]:
        """Mean identity and motion score of videos, each (F, 3, 32, 32) in [-1, 1], and the shares of top-1 hits."""
        bank = self.bank
        target = bank.sprites.index(self.figure)
        identity = [score_identity(video, target, bank) for video in videos]
        motion = [score_motion(video, self.motion, self.motions) for video in videos]
        count = len(videos)
        return {
            "identity": sum(score.score for score in identity) / count,
            "motion": sum(score.score for score in motion) / count,
            "identity_top1": sum(score.best == target for score in identity) / count,
            "motion_top1": sum(score.best == self.motion for score in motion) / count,
        }


def retention(fused: float, base: float, single: float) -> float | None:
    """(fused - base) / (single - base): 0 is lost, 1 is lossless; None where the side alone is no better than the base."""
    return None if single <= base else (fused - base) / (single - base)


def _signed(frames: torch.Tensor) -> torch.Tensor:
    """(F, H, W, 3) uint8 -> (F, 3, H, W) in [-1, 1]."""
    return frames.movedim(-1, 1).float() / 127.5 - 1
