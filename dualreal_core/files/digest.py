"""Digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE = 2**20


def file_digest(path: Path) -> str:
    """sha256 of a file of any size, read piece by piece."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            sha.update(piece)
    return sha.hexdigest()
