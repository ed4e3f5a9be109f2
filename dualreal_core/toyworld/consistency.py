"""Whether a sprite stays itself from frame to frame: along its track, as the benchmark measures, or at its best place, as Evaluate does.

Both give 1 where it does and 0 where a frame shows no sprite. In between they differ, so their values do not compare.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

import torch
from torch.nn import functional

from .figures import SPRITE_CELLS
from .scores import background_colors, track

WINDOW_CELLS = SPRITE_CELLS + 4
"""Side of the window around a sprite that consecutive frames are compared in."""


def consistency_along_track(frames: torch.Tensor) -> float:
    """Mean cosine (0..1) of the windows around the sprite's centre in consecutive frames; 0 where any frame shows no sprite.

    Backgrounds are subtracted. The second window may lie a cell off the centre, so that a sprite whose centre is between
    cells is met.

    Args:
        frames: (F, 3, 32, 32) in [-1, 1].
    """
    centers = track(frames)
    if centers is None:
        return 0.0
    foreground = functional.pad(_foreground(frames), [WINDOW_CELLS] * 4)
    starts = (centers + 0.5 + WINDOW_CELLS - WINDOW_CELLS / 2).floor().long().tolist()
    cosines = []
    for (before, (x0, y0)), (after, (x1, y1)) in pairwise(zip(foreground, starts, strict=True)):
        window = _window(before, x0, y0)
        moved = [_window(after, x1 + dx, y1 + dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        cosines.append(max(float(functional.cosine_similarity(window.flatten(), other.flatten(), dim=0)) for other in moved))
    return max(fmean(cosines), 0.0)


def consistency_at_best_place(frames: torch.Tensor) -> list[float]:
    """Cosine of the sprite with itself one frame on, whatever its place: 1 unchanged, 0 gone, changed beyond recognition.

    Backgrounds are subtracted. The window of the first frame that holds the most of what is left is compared, by cosine,
    with the second at every place; the best place counts. 0 also where either frame shows no sprite.

    Args:
        frames: (F, 3, 32, 32) in [-1, 1].

    Returns:
        F - 1 values in 0..1.
    """
    # a window also fits a sprite at the edge, wherever in it that is
    foreground = functional.pad(_foreground(frames).double(), [WINDOW_CELLS // 4] * 4)
    ones = torch.ones(1, 1, WINDOW_CELLS, WINDOW_CELLS).to(foreground)
    energy = functional.conv2d(foreground.square().sum(1, keepdim=True), ones).clamp(min=0).sqrt()  # (F, 1, P, P)
    cosines = []
    for index in range(len(frames) - 1):
        if track(frames[index : index + 2]) is None:
            cosines.append(0.0)
            continue
        y, x = divmod(int(energy[index].argmax()), energy.shape[-1])
        window = _window(foreground[index], x, y)
        product = functional.conv2d(foreground[index + 1 : index + 2], window[None])[0]
        cosine = product / (window.norm() * energy[index + 1]).clamp(min=1e-3)
        cosines.append(min(max(float(cosine.max()), 0.0), 1.0))
    return cosines


def _foreground(frames: torch.Tensor) -> torch.Tensor:
    return frames - background_colors(frames)[:, :, None, None]


def _window(frame: torch.Tensor, x: int, y: int) -> torch.Tensor:
    return frame[:, y : y + WINDOW_CELLS, x : x + WINDOW_CELLS]
