"""Which frames of a clip are seen: resampled by timestamps, so that nothing speeds up, then cut into segments."""

from __future__ import annotations

from dataclasses import dataclass

from ..video.clip import ClipProbe, resample
from .report import Unusable, counted


@dataclass(frozen=True)
class Segments:
    """Attributes:
        shown: for every instant of the resampled clip, the frame on screen.
        length: frames per segment.
        starts: first instant of each segment.
    """

    shown: list[int]
    length: int
    starts: list[int]


def find_segments(
    clip: ClipProbe, fps: float, num_frames: int, max_segments: int, frame_multiple: int, frame_remainder: int = 1
) -> Segments:
    """Segments of up to `num_frames` of a clip.

    Raises:
        Unusable: not even the shortest length remains.
    """
    if len(clip.times) == 1:
        raise Unusable("too short: it has a single frame, and motion needs several")
    shown = resample(clip.times, clip.duration, fps)
    length = segment_length(len(shown), num_frames, frame_multiple, frame_remainder)
    if length is None:
        frames, least = counted(len(shown), "frame"), shortest_length(frame_multiple, frame_remainder)
        raise Unusable(f"too short: {clip.duration:.2f} s give {frames} at {fps:g} fps, and {least} are needed")
    return Segments(shown, length, segment_starts(len(shown), length, max_segments))


def segment_length(available: int, num_frames: int, frame_multiple: int, frame_remainder: int = 1) -> int | None:
    """The longest count above 1, up to `num_frames`, that is frame_multiple * k + frame_remainder; None when none fits."""
    multiples = (min(available, num_frames) - frame_remainder) // frame_multiple
    length = multiples * frame_multiple + frame_remainder
    return length if length >= shortest_length(frame_multiple, frame_remainder) else None


def shortest_length(frame_multiple: int, frame_remainder: int = 1) -> int:
    """The shortest of those that has motion."""
    return frame_remainder if frame_remainder > 1 else frame_multiple + frame_remainder


def segment_starts(available: int, length: int, max_segments: int) -> list[int]:
    """Evenly spaced starts, the first at the head and the last at the tail; a single segment sits in the middle."""
    count = max(1, min(max_segments, int(available / length + 0.5)))
    return [(available - length) // 2] if count == 1 else evenly_spread(available - length + 1, count)


def evenly_spread(count: int, num_wanted: int) -> list[int]:
    """So many places of `count`, the first and the last among them; places repeat where there are fewer."""
    return [round(place * (count - 1) / max(1, num_wanted - 1)) for place in range(num_wanted)]
