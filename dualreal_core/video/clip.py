"""A clip in time: when each frame appears, at what rate, and which frame is on screen at an instant."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import torch

TIMESTAMP_SLACK = 0.006  # containers round timestamps to milliseconds, GIF to centiseconds
REGULAR_SHARE = 0.8
"""Of the intervals that must agree before a clip counts as one of a constant rate, whose other intervals are holes."""


@dataclass(frozen=True)
class Clip:
    """frames: (F, 3, H, W) uint8; fps: rate of the clip."""

    frames: torch.Tensor
    fps: float


@dataclass(frozen=True)
class ClipProbe:
    """What a full decode found, in the orientation and pixel aspect in which players show it.

    Attributes:
        times: seconds at which each decoded frame appears, the first at 0.
        duration: seconds from the first frame's appearance to the last one's end.
        remarks: what people should know about the file.
    """

    times: tuple[float, ...]
    duration: float
    height: int
    width: int
    remarks: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """Of the clip at its own rate."""
        return len(self.shown)

    @cached_property
    def fps(self) -> float:
        """The rate of nearly all frames; the mean rate where frames come irregularly. What the header claims plays no part."""
        alike = self._intervals_alike
        if len(alike) == len(self.times) or len(alike) < REGULAR_SHARE * len(self.times):
            return len(self.times) / self.duration
        return len(alike) / sum(alike)

    @cached_property
    def shown(self) -> list[int]:
        """The decoded frame on screen, for every frame of the clip at its own rate: where some are missing, the one before stays."""
        has_holes = REGULAR_SHARE * len(self.times) <= len(self._intervals_alike) < len(self.times)
        return resample(self.times, self.duration, self.fps) if has_holes else list(range(len(self.times)))

    @cached_property
    def _intervals_alike(self) -> list[float]:
        ends = [*self.times[1:], self.duration]
        intervals = [end - begin for begin, end in zip(self.times, ends, strict=True)]
        usual = median(intervals)
        slack = max(0.1 * usual, min(0.0105, 0.4 * usual))
        return [interval for interval in intervals if abs(interval - usual) <= slack] if usual > 0 else []


def resample(times: Sequence[float], duration: float, fps: float) -> list[int]:
    """For every instant k / fps within `duration`, the index of the frame on screen.

    times: ascending seconds at which frames appear, the first at 0.
    """
    slack = min(TIMESTAMP_SLACK, 0.25 / fps)
    count = max(1, math.ceil((duration - slack) * fps))
    return [max(0, bisect_right(times, k / fps + slack) - 1) for k in range(count)]
