"""One process at a time in a folder whose files belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError

LOCK_NAME = ".lock"


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keeps other processes that ask the same way out of `folder`, which is made where it is missing, until the body ends.

    A killed process keeps nobody out. Where the lock cannot be written, or the file system knows none, there is none: the
    next file that is written there says what is wrong with the folder.

    Raises:
        InputError: another process is in the folder.
    """
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"{folder} is in use by another process: wait until that one ends, or choose another folder.") from error
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()
