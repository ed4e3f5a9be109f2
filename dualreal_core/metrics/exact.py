"""Exact scores of toy-world videos: the references say which sprite and which motion are meant, no model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch.nn import functional

from ..errors import InputError
from ..toyworld.figures import FIGURES, Figure
from ..toyworld.paths import MOTIONS
from ..toyworld.scores import named_sprites, score_identity, score_motion, templates, track
from ..toyworld.trial import PHOTO_CELLS
from ..toyworld.world import FRAME_CELLS, Look
from .evaluation import Evaluation, VideoScores

UNEVENNESS = 0.035
"""The most variance that may lie within the cells, as a share of all: H.264 leaves up to 0.03, smooth enlarging 0.04 and more."""
FAINT_VARIANCE = 1e-4
"""Variance within the cells that is never too much."""
KNOWN_SPRITE, KNOWN_MOTION = 0.9, 0.75
"""References that score less with every sprite or motion are not of the toy world."""
WINDOW_CELLS = 16
"""Side of the window around a sprite of 12 cells."""


def evaluate_toyworld(
    videos: Sequence[torch.Tensor], names: Sequence[str], identity: Sequence[torch.Tensor], motions: Sequence[torch.Tensor]
) -> Evaluation:
    """Scores of videos against the sprite and the motion that the references show.

    Identity and motion are those of `toyworld.scores`; consistency is `sprite_consistency`.

    Args:
        videos, motions: (F, H, W, 3) in [0, 1], 32x32 cells of a whole number of pixels.
        identity: (N, H, W, 3) in [0, 1], 32x32 or 48x48 cells.

    Raises:
        InputError: another size, or references that show no sprite or motion of the toy world.
    """
    clips = [to_cells(video, f"video {index}", [FRAME_CELLS]) for index, video in enumerate(videos, start=1)]
    photos = [to_cells(photo, f"identity reference {index}", [PHOTO_CELLS, FRAME_CELLS]) for index, photo in enumerate(identity, start=1)]
    paths = [to_cells(clip, f"motion reference {index}", [FRAME_CELLS]) for index, clip in enumerate(motions, start=1)]
    sprites = named_sprites()
    bank = templates(sprites)
    target, motion_target = find_sprite(photos, bank), find_motion(paths)
    scores = []
    for name, clip in zip(names, clips, strict=True):
        likeness, fidelity = score_identity(clip, bank, target), score_motion(clip, motion_target)
        consistency = sprite_consistency(clip)
        scores.append(
            VideoScores(
                name=name,
                num_frames=len(clip),
                identity=min(likeness.mean, 1.0),  # the cosine may round to a hair above
                motion=fidelity.score if len(clip) > 1 else None,
                consistency=fmean(consistency) if consistency else None,
                identity_per_frame=likeness.frames,
                consistency_per_pair=consistency,
                motion_per_reference=[],
                nearest_identity=_sprite_name(sprites[likeness.best]),
                nearest_motion=fidelity.best if len(clip) > 1 else None,
            )
        )
    return Evaluation("toy world", scores, _sprite_name(sprites[target]), motion_target)


def to_cells(images: torch.Tensor, source: str, sizes: Sequence[int]) -> torch.Tensor:
    """Pictures enlarged by a whole factor, as one pixel a cell.

    Args:
        images: (F, H, W, 3) in [0, 1].
        source: what the sentence calls them.
        sizes: cells that a side may have.

    Returns:
        (F, 3, S, S) in [-1, 1].
    """
    height, width = images.shape[1:3]
    fitting = [_as_cells(images, size) for size in sizes if height == width and height % size == 0]
    unevenness, cells = min(fitting, key=lambda fit: fit[0], default=(0.0, None))
    if cells is not None and unevenness <= UNEVENNESS:
        return cells.movedim(-1, 1).float().clamp(0, 1) * 2 - 1
    allowed = " or ".join(f"{size}x{size}" for size in sizes)
    if cells is not None:
        raise InputError(f"Metric 'toy world': {source} was enlarged with smoothing; enlarge it by a whole factor with nearest-exact.")
    raise InputError(
        f"Metric 'toy world': {source} is {width}x{height} pixels, but toy-world pictures are {allowed} or a whole multiple; "
        "wire toy-world pictures or choose the metric 'embedding'."
    )


def find_sprite(photos: Sequence[torch.Tensor], bank: tuple[torch.Tensor, torch.Tensor]) -> int:
    """Which sprite of `bank` the photos show.

    Args:
        photos: (N, 3, S, S) each, in [-1, 1].
    """
    found = set()
    for index, photo in enumerate(photos, start=1):
        best = score_identity(photo, bank, 0).best
        if score_identity(photo, (bank[0][best : best + 1], bank[1][best : best + 1]), 0).mean < KNOWN_SPRITE:
            raise InputError(
                f"Metric 'toy world': identity reference {index} shows no known figure of the toy world; "
                "wire the images of Example Data or choose the metric 'embedding'."
            )
        found.add(best)
    if len(found) > 1:
        raise InputError(f"Metric 'toy world': the identity references show {len(found)} different figures; wire the images of one.")
    return found.pop()


def find_motion(clips: Sequence[torch.Tensor]) -> str:
    """Which motion the clips perform, by the mean of their scores.

    Args:
        clips: (F, 3, 32, 32) each, in [-1, 1].
    """
    moving = [clip for clip in clips if len(clip) > 1]
    scores = {name: fmean(score_motion(clip, name).score for clip in moving) for name in MOTIONS} if moving else {"": 0.0}
    best = max(scores, key=scores.__getitem__)
    if scores[best] < KNOWN_MOTION:
        raise InputError(
            "Metric 'toy world': the motion references perform no known motion of the toy world; "
            "wire the videos of Example Data or choose the metric 'embedding'."
        )
    return best


def sprite_consistency(frames: torch.Tensor) -> list[float]:
    """Cosine of the sprite with itself one frame on, whatever its place: 1 unchanged, 0 gone, changed beyond recognition.

    From each of the two frames its median colour is subtracted. The 16x16 cells of the first that hold the most of what is
    left are compared, by cosine, with the second at every place; the best place counts. 0 also where a frame shows no sprite.

    Args:
        frames: (F, 3, 32, 32) in [-1, 1].

    Returns:
        F - 1 values in 0..1.
    """
    foreground = (frames - frames.flatten(2).median(dim=2).values[:, :, None, None]).double()
    foreground = functional.pad(foreground, (WINDOW_CELLS // 4,) * 4)  # a window also fits a sprite at the edge, wherever in it that is
    ones = torch.ones(1, 1, WINDOW_CELLS, WINDOW_CELLS).to(foreground)
    energy = functional.conv2d(foreground.square().sum(1, keepdim=True), ones).clamp(min=0).sqrt()  # (F, 1, P, P)
    cosines = []
    for index in range(len(frames) - 1):
        if track(frames[index : index + 2]) is None:
            cosines.append(0.0)
            continue
        y, x = divmod(int(energy[index].argmax()), energy.shape[-1])
        window = foreground[index : index + 1, :, y : y + WINDOW_CELLS, x : x + WINDOW_CELLS]
        product = functional.conv2d(foreground[index + 1 : index + 2], window)[0]
        cosine = product / (window.norm() * energy[index + 1]).clamp(min=1e-3)
        cosines.append(min(max(float(cosine.max()), 0.0), 1.0))
    return cosines


def _as_cells(images: torch.Tensor, size: int) -> tuple[float, torch.Tensor]:
    """Share of the variance within cells, and the pixel amid each: (F, size, size, 3)."""
    factor = images.shape[1] // size
    cells = images[:, factor // 2 :: factor, factor // 2 :: factor]
    within = (images - cells.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)).square().mean()
    total = (images - images.mean((1, 2), keepdim=True)).square().mean()
    return float((within - FAINT_VARIANCE).clamp(min=0) / total.clamp(min=FAINT_VARIANCE)), cells


def _sprite_name(sprite: Look | Figure) -> str:
    return next(name for name, figure in FIGURES.items() if figure == sprite) if isinstance(sprite, Figure) else sprite.phrase
