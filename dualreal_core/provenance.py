"""Where a file comes from: when, and with which libraries."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib import metadata

from . import __version__

LIBRARIES = ("torch", "diffusers", "peft", "safetensors")


def provenance() -> dict[str, str]:
    """Date (UTC) and versions of this library and of those it computes with."""
    versions = {"dualreal": __version__}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **versions}
