"""Whether a decoded file is whole. What the decoder complains of is no verdict: the frames that it gave are.

A stream copy that begins inside an open group of pictures makes decoders complain and loses only frames before the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError
from .clip import ClipProbe

CURE = "replace it or encode it anew, for example with: ffmpeg -i {name} -c:v libx264 new.mp4"
ENDS_EARLY = ("ended prematurely", "partial file")
"""What readers say of a file that stops before the length of one of its parts."""
UNTIMED_FPS = 25.0
LONGEST_S = 24 * 3600


@dataclass(frozen=True)
class Decoding:
    """What came of decoding a whole file; all in seconds of its own clock.

    Attributes:
        frames: (start, duration) of each frame of the picture, as they came.
        packets: starts of the packets of the picture.
        reach: when the last packet of any stream ends: sound and subtitles may rightly outlast the picture.
        promised: length that the header declares, from `begin` on; None where it is silent.
        num_broken: frames that the decoder itself calls corrupt.
        complaints: of the reader and the decoder.
        is_short: the file is shorter than its container says.
    """

    frames: Sequence[tuple[float, float]]
    packets: Sequence[float]
    reach: float
    promised: float | None
    begin: float
    num_broken: int
    complaints: Sequence[str]
    is_short: bool
    height: int
    width: int


def judge(name: str, file_name: str, found: Decoding, remarks: Sequence[str] = ()) -> ClipProbe:
    """The clip that was decoded.

    name: of the file, for people. file_name: of it in the advice.

    Raises:
        InputError: without frames, damaged, or cut off.
    """
    cure = CURE.format(name=file_name)
    if not found.frames:
        reason = f" ({found.complaints[0]})" if found.complaints else ""
        raise InputError(f"{name} holds no video frames{reason}; {cure}.")
    times, duration = _timing(found.frames)
    if duration > LONGEST_S:
        raise InputError(f"{name} has frames {duration / 3600:.0f} hours apart by its timestamps; {cure}.")
    interval = duration / len(times)
    first = min(start for start, _ in found.frames) - interval / 2
    num_lost = sum(start > first for start in found.packets) - len(times) if found.complaints else 0
    if found.num_broken or num_lost > 0:
        what = f"{found.num_broken} of {len(times)} frames broken" if found.num_broken else f"{num_lost} frames cannot be decoded"
        raise InputError(f"{name} is damaged: {what} ({(found.complaints or ['corrupt frame'])[0]}); {cure}.")
    if found.promised is not None:
        is_short = found.is_short or any(words in said for said in found.complaints for words in ENDS_EARLY)
        slack = interval if is_short else 3 * interval + 0.02 * found.promised
        if max(duration, found.reach - found.begin) < found.promised - slack:
            raise InputError(f"{name} is cut off after {duration:.2f} s of {found.promised:.2f} s; {cure}.")
    if found.complaints:
        remarks = [*remarks, f"whole, though its decoder says '{found.complaints[0]}'"]
    return ClipProbe(times, duration, found.height, found.width, tuple(remarks))


def _timing(frames: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], float]:
    """Times from 0 that never fall, and the duration; frames without times are taken to follow at a usual rate."""
    first = frames[0][0]
    times: list[float] = []
    for start, _ in frames:
        times.append(max(start - first, times[-1] if times else 0.0))
    if times[-1] <= 0:
        last = frames[-1][1]
        length = last if len(frames) == 1 and last > 0.004 else 1 / UNTIMED_FPS
        return tuple(index * length for index in range(len(frames))), length * len(frames)
    return tuple(times), times[-1] + (frames[-1][1] or times[-1] / (len(times) - 1))
