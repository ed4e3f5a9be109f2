"""Where what can be made again is kept between runs of one user."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def user_cache_folder() -> Path:
    """`dualreal` in the folder for caches: $XDG_CACHE_HOME where that is set, else the system's own. It need not exist."""
    named = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    if named.is_absolute():  # others are to be ignored
        return named / "dualreal"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "dualreal" / "Cache"
    try:
        home = Path.home()
    except RuntimeError:  # an account without one, as in some containers
        return Path(tempfile.gettempdir()) / "dualreal"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "dualreal"


def latent_cache() -> Path:
    """The folder that latents, text and reference embeddings are kept in unless another is named: shared by all runs of a user."""
    return user_cache_folder() / "latents"
