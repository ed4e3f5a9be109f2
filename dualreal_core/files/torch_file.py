"""Files that torch wrote: read without running code in them, and only where they are whole."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch


def load_whole(path: Path) -> object:
    """What `torch.save` was given, on the CPU.

    Raises:
        ValueError: the file is damaged, or holds more than plain values; nothing in it was executed.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare checksums
                if archive.testzip() is not None:
                    raise ValueError("a checksum differs")
                if min((member.header_offset for member in archive.infolist()), default=0):  # torch would read what was not compared
                    raise ValueError("something stands before its archive")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive or pickle may raise anything
        raise ValueError((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
