"""Where a MODEL comes from."""

from __future__ import annotations

from pathlib import Path

from comfy.model_patcher import ModelPatcher


def model_file(model: ModelPatcher) -> str | None:
    """Name of the file that a loader of ComfyUI's read the MODEL from; None where it does not say."""
    given = (getattr(model, "cached_patcher_init", None) or (None, ()))[1]
    path = next((value for value in given if isinstance(value, (str, Path))), None) if isinstance(given, tuple) else None
    return None if path is None else Path(path).name or None
