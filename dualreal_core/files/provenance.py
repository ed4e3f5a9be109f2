"""Where a file comes from: when, and with which libraries."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from importlib import metadata

from .. import __version__

LIBRARIES = ("torch", "diffusers", "peft", "safetensors")


def provenance() -> dict[str, str]:
    """Date (UTC) and versions of this library and of those it computes with.

    `SOURCE_DATE_EPOCH`, seconds since 1970, sets the date where files must come out the same twice.
    """
    versions = {"dualreal": __version__}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    date = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch else datetime.now(timezone.utc)
    return {"date": date.isoformat(timespec="seconds"), **versions}
