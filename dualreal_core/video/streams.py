"""Which stream of a file is its picture: files carry covers, thumbnails and previews beside it, often before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FEW = 0.1
"""A stream with fewer than this share of the packets of the longest is a thumbnail, not the picture."""


@dataclass(frozen=True)
class PictureStream:
    """Attributes:
        index: among all streams of the file.
        is_cover: the file itself says that it is a cover picture.
        num_packets: about its number of frames.
    """

    index: int
    width: int
    height: int
    is_cover: bool
    is_default: bool
    num_packets: int = 0


def choose_picture(streams: Sequence[PictureStream]) -> PictureStream | None:
    """The moving picture: of those that run on, the largest, then the one that players choose by default, then the first."""
    moving = [stream for stream in streams if not stream.is_cover]
    most = max((stream.num_packets for stream in moving), default=0)
    moving = [stream for stream in moving if stream.num_packets >= FEW * most and (stream.num_packets > 1 or most < 2)]
    return max(moving, key=lambda stream: (stream.width * stream.height, stream.is_default, -stream.index), default=None)


def choice_remark(streams: Sequence[PictureStream], chosen: PictureStream) -> list[str]:
    """What people should know about the choice; nothing where there was none."""
    if len(streams) == 1:
        return []
    place = sorted(stream.index for stream in streams).index(chosen.index) + 1
    return [f"of its {len(streams)} picture streams number {place} is used ({chosen.width}x{chosen.height})"]
