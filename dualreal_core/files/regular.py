"""Files that can be read at all: a pipe or a device under the name of a photo would be read for ever."""

from __future__ import annotations

import stat
from pathlib import Path

KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def unreadable_reason(path: Path, may_be_empty: bool = False) -> str | None:
    """Why a path is no file with content, in words that follow 'it'; None where it is one."""
    try:
        status = path.stat()
    except (OSError, ValueError, RuntimeError) as problem:  # pathlib's answers to links that lead in a circle and to NUL in a name
        if isinstance(problem, PermissionError):
            return "cannot be opened: its permissions or those of its folder forbid it"
        return "is a link that leads nowhere" if _is_link(path) else "does not exist"
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        return f"is {kind}, not a file"
    return None if status.st_size or may_be_empty else "is empty: the file holds no bytes"


def printable(name: str) -> str:
    """The name with bytes that are no text written out, so that it can be shown and sent on; two names stay two."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False
