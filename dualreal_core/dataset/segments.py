"""Which frames of a clip are seen: resampled by timestamps, so that nothing speeds up, then cut into windows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

TIMESTAMP_SLACK = 0.006  # containers round timestamps to milliseconds, GIF to centiseconds


class TooShort(ValueError):
    """A clip that gives no window. The message is the reason for the report."""


@dataclass(frozen=True)
class Windows:
    """Attributes:
        shown: for every instant of the resampled clip, the frame on screen.
        length: frames per window.
        starts: first instant of each window.
    """

    shown: list[int]
    length: int
    starts: list[int]

    def indices(self, start: int) -> tuple[int, ...]:
        """The frames that the window at `start` shows."""
        return tuple(self.shown[start : start + self.length])


def find_segments(times: Sequence[float], duration: float, fps: float, num_frames: int, max_segments: int, frame_multiple: int) -> Windows:
    """Windows of up to `num_frames` in a clip whose frames appear at `times` (seconds).

    Raises:
        TooShort: not even frame_multiple + 1 frames remain.
    """
    if len(times) == 1:
        raise TooShort("too short: it has a single frame, and motion needs several")
    shown = resample(times, duration, fps)
    length = window_length(len(shown), num_frames, frame_multiple)
    if length is None:
        raise TooShort(f"too short: {duration:.2f} s give {len(shown)} frames at {fps:g} fps, and {frame_multiple + 1} are needed")
    return Windows(shown, length, window_starts(len(shown), length, max_segments))


def resample(times: Sequence[float], duration: float, fps: float) -> list[int]:
    """For every instant k / fps within `duration`, the index of the frame on screen.

    times: ascending seconds at which frames appear, the first at 0.
    """
    count = max(1, math.ceil((duration - TIMESTAMP_SLACK) * fps))
    return [max(0, bisect_right(times, k / fps + TIMESTAMP_SLACK) - 1) for k in range(count)]


def window_length(available: int, num_frames: int, frame_multiple: int) -> int | None:
    """The longest count up to `num_frames` that is frame_multiple * k + 1 with k >= 1; None when none fits."""
    multiples = (min(available, num_frames) - 1) // frame_multiple
    return multiples * frame_multiple + 1 if multiples >= 1 else None


def window_starts(available: int, length: int, max_segments: int) -> list[int]:
    """Evenly spaced starts, the first at the head and the last at the tail; a single window sits in the middle."""
    count = max(1, min(max_segments, int(available / length + 0.5)))
    if count == 1:
        return [(available - length) // 2]
    return [round(place * (available - length) / (count - 1)) for place in range(count)]
