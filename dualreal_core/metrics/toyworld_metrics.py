"""Scores of toy-world videos, exact: the references say which sprite and which motion are meant, no model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from statistics import fmean

import torch

from ..errors import InputError
from ..toyworld.consistency import consistency_at_best_place
from ..toyworld.paths import MOTIONS
from ..toyworld.scores import score_identity, score_motion, sprite_bank, sprite_likeness
from ..toyworld.trial import PHOTO_CELLS
from ..toyworld.world import FRAME_CELLS
from .features import Models, References, VideoFeatures, to_bytes
from .registry import Metric

UNEVENNESS = 0.035
"""The most variance that may lie within the cells, as a share of all: H.264 leaves up to 0.03, smooth enlarging 0.04 and more."""
FAINT_VARIANCE = 1e-4
"""Variance within the cells that is never too much."""
KNOWN_SPRITE, KNOWN_MOTION = 0.9, 0.75
"""References that score less with every sprite or motion are not of the toy world."""

TOYWORLD_METRICS = (
    Metric(
        "sprite_likeness",
        "identity",
        "cosine of the references' sprite and the window of each frame that is most like it",
        (),
        1,
        lambda video, references: video.likeness[:, references.sprite].tolist(),
        lambda video, references: min(float(video.likeness.mean(0)[references.sprite]), 1.0),  # it may round to a hair above
    ),
    Metric(
        "path_likeness",
        "motion",
        "1 - rms distance of the sprite's track and the references' motion, over the motion's radius",
        (),
        2,
        lambda video, references: [score_motion(video.cells, references.motion).score],
    ),
    Metric(
        "sprite_consistency",
        "consistency",
        "cosine of the sprite in neighbouring frames, at the place where it is most alike",
        (),
        2,
        lambda video, references: consistency_at_best_place(video.cells),
    ),
)
"""Of `ToyworldVideo` and `ToyworldReferences`."""


class ToyworldVideo(VideoFeatures):
    """A video of 32x32 cells.

    Attributes:
        cells: (F, 3, 32, 32) in [-1, 1].
    """

    def __init__(self, images: torch.Tensor, source: str) -> None:
        """
        Args:
            images: (F, H, W, 3) in [0, 1], each cell a whole number of pixels.
            source: what the sentence of an error calls it.

        Raises:
            InputError: another size, or enlarged with smoothing.
        """
        super().__init__(Models(), to_bytes(images))
        self.cells = to_cells(images, source, [FRAME_CELLS])

    @cached_property
    def likeness(self) -> torch.Tensor:
        """(F, K) of every sprite of the bank."""
        return sprite_likeness(self.cells)


class ToyworldReferences(References):
    """Attributes:
    sprite: which of the bank the photos show; motion: name of what the videos perform.
    """

    def __init__(self, photos: Sequence[torch.Tensor], videos: Sequence[torch.Tensor]) -> None:
        """
        Args:
            photos: (N, H, W, 3) in [0, 1], 32x32 or 48x48 cells of a whole number of pixels.
            videos: (F, H, W, 3) in [0, 1], 32x32 cells.

        Raises:
            InputError: another size, or they show no sprite or motion of the toy world, or several sprites.
        """
        super().__init__(Models(), [], [])
        numbered = enumerate(photos, start=1)
        photos = [to_cells(photo, f"identity reference {index}", [PHOTO_CELLS, FRAME_CELLS]) for index, photo in numbered]
        videos = [to_cells(video, f"motion reference {index}", [FRAME_CELLS]) for index, video in enumerate(videos, start=1)]
        self.sprite, self.motion = _find_sprite(photos), _find_motion(videos)


def to_cells(images: torch.Tensor, source: str, sizes: Sequence[int]) -> torch.Tensor:
    """Pictures enlarged by a whole factor, as one pixel a cell.

    Args:
        images: (F, H, W, 3) in [0, 1].
        source: what the sentence calls them.
        sizes: cells that a side may have.

    Returns:
        (F, 3, S, S) in [-1, 1].

    Raises:
        InputError: another size, or enlarged with smoothing.
    """
    height, width = images.shape[1:3]
    fitting = [_as_cells(images, size) for size in sizes if height == width and height % size == 0]
    unevenness, cells = min(fitting, key=lambda fit: fit[0], default=(0.0, None))
    if cells is None:
        allowed = " or ".join(f"{size}x{size}" for size in sizes)
        raise InputError(
            f"Metric 'toy world': {source} is {width}x{height} pixels, but toy-world pictures are {allowed} or a whole multiple; "
            "wire toy-world pictures or choose the metric 'embedding'."
        )
    if unevenness > UNEVENNESS:
        raise InputError(f"Metric 'toy world': {source} was enlarged with smoothing; enlarge it by a whole factor with nearest-exact.")
    return cells.movedim(-1, 1).float().clamp(0, 1) * 2 - 1


def find_nearest(video: ToyworldVideo, references: ToyworldReferences) -> dict[str, str | None]:
    """Names of the sprite and the motion that a video resembles most; one frame shows no motion."""
    sprite = score_identity(video.cells, references.sprite).best
    motion = score_motion(video.cells, references.motion).best if len(video.cells) > 1 else None
    return {"nearest_identity": sprite_bank().names[sprite], "nearest_motion": motion}


def _find_sprite(photos: Sequence[torch.Tensor]) -> int:
    """Which sprite of the bank the photos show, (N, 3, S, S) each, in [-1, 1]."""
    found = set()
    for index, photo in enumerate(photos, start=1):
        likeness = sprite_likeness(photo).mean(0)
        if likeness.max() < KNOWN_SPRITE:
            raise InputError(
                f"Metric 'toy world': identity reference {index} shows no known figure of the toy world; "
                "wire the images of Example Data or choose the metric 'embedding'."
            )
        found.add(int(likeness.argmax()))
    if len(found) > 1:
        raise InputError(f"Metric 'toy world': the identity references show {len(found)} different figures; wire the images of one.")
    return found.pop()


def _find_motion(videos: Sequence[torch.Tensor]) -> str:
    """Which motion the videos perform, (F, 3, 32, 32) each, in [-1, 1], by the mean of their scores."""
    moving = [video for video in videos if len(video) > 1]
    scores = {name: fmean(score_motion(video, name).score for video in moving) for name in MOTIONS} if moving else {"": 0.0}
    best = max(scores, key=scores.__getitem__)
    if scores[best] < KNOWN_MOTION:
        raise InputError(
            "Metric 'toy world': the motion references perform no known motion of the toy world; "
            "wire the videos of Example Data or choose the metric 'embedding'."
        )
    return best


def _as_cells(images: torch.Tensor, size: int) -> tuple[float, torch.Tensor]:
    """Share of the variance within cells, and the pixel amid each: (F, size, size, 3)."""
    factor = images.shape[1] // size
    cells = images[:, factor // 2 :: factor, factor // 2 :: factor]
    within = (images - cells.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)).square().mean()
    total = (images - images.mean((1, 2), keepdim=True)).square().mean()
    return float((within - FAINT_VARIANCE).clamp(min=0) / total.clamp(min=FAINT_VARIANCE)), cells
