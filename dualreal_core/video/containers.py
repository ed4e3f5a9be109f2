"""Finds before decoding what no video can be: pipes, devices, folders, empty files, GIF files without an end."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..files.regular import printable, unreadable_reason
from .verdict import CURE

RIFF_SLACK = 9
"""Bytes: some programs write the length of the whole file, 8 more than what follows, or forget the last padding."""


def check_file(path: Path) -> None:
    """Raises InputError where there is no file with something in it; opening a pipe would wait for ever."""
    reason = unreadable_reason(path)
    if reason is not None:
        raise InputError(f"{printable(str(path))} {reason}; check the path.")


def is_short(path: Path) -> bool:
    """Whether the file is shorter than its container says.

    Raises:
        InputError: it cannot be opened, or it is a GIF that ends in the middle: ffmpeg passes over that in silence.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            if head[:3] == b"GIF":
                stream.seek(0)
                if not _is_whole_gif(stream.read()):
                    raise InputError(f"{path} is cut off; {CURE.format(name=path.name)}.")
            length = stream.seek(0, 2)
    except OSError as problem:
        raise InputError(f"{path} cannot be opened ({problem.strerror}); check its permissions.") from problem
    declared = int.from_bytes(head[4:8], "little") + 8 if head[:4] == b"RIFF" else 0
    return length + RIFF_SLACK < declared < 2**32


def _is_whole_gif(content: bytes) -> bool:
    """Follows the blocks to the trailer; whatever lies behind it is no part of the GIF."""

    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    try:
        place = 13 + palette(content[10])
        while content[place] != 0x3B:
            if content[place] == 0x2C:  # picture
                place += 11 + palette(content[place + 9])
            elif content[place] == 0x21:  # extension
                place += 2
            elif content[place] == 0:  # stray padding
                place += 1
                continue
            else:
                return False
            while content[place]:
                place += 1 + content[place]
            place += 1
    except IndexError:
        return False
    return True
