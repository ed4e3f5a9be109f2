"""Files appear whole or not at all: written under a temporary name in the same folder, flushed to disk, renamed."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError

FULL_DISK = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path with the suffix of `path`; on leaving, what was written there becomes `path`.

    Missing parent folders are created. When the body raises, `path` stays as it was and the temporary file goes.

    Raises:
        InputError: the folder or the disk does not take the file.
    """
    path = Path(path)
    # 40 characters of up to 4 bytes: no longer than the 255 bytes a name may have, wherever `path` itself is not
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
    except OSError as problem:
        raise InputError(_sentence(path, problem)) from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    with suppress(OSError):  # makes the rename durable; file systems that cannot open a folder do without
        _flush(path.parent, os.O_RDONLY)


def _flush(path: Path, access: int) -> None:
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sentence(path: Path, problem: OSError) -> str:
    if problem.errno in FULL_DISK:
        return f"{path} could not be written because the disk is full; free some space or choose another folder."
    if problem.errno in FORBIDDEN:
        return f"{path} could not be written because its folder is read-only or not yours; choose a folder you can write to."
    if problem.errno in NOT_A_FOLDER:
        return f"{path} could not be written because a file or folder of that name is in the way; choose another name."
    return f"{path} could not be written ({problem.strerror or problem}); check the folder and the disk, or choose another folder."
