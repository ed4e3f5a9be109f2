"""Where the tests find ComfyUI: COMFYUI_PATH or ~/ComfyUI; its Python: COMFYUI_PYTHON or COMFYUI_PATH/venv."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PACK_ROOT = Path(__file__).resolve().parents[2]
PACK_NAME = "DualReal"
TESTED_VERSION = "0.33.0"


@dataclass(frozen=True)
class ComfyHost:
    """A ComfyUI checkout and the interpreter that runs it."""

    path: Path
    python: Path


def find_host() -> ComfyHost:
    """The ComfyUI to test against.

    Raises:
        FileNotFoundError: no checkout, or no interpreter for it; the message is one sentence that says what to set.
    """
    path = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "ComfyUI").expanduser()
    if not (path / "main.py").is_file():
        raise FileNotFoundError(f"no ComfyUI at {path}: set COMFYUI_PATH to a checkout of ComfyUI {TESTED_VERSION}")
    python = Path(os.environ.get("COMFYUI_PYTHON") or path / "venv" / "bin" / "python").expanduser()
    if not python.is_file():
        raise FileNotFoundError(f"no Python for ComfyUI at {python}: set COMFYUI_PYTHON to the interpreter that runs {path}")
    return ComfyHost(path, python)


def absence_reason() -> str | None:
    """Why there is no ComfyUI to test against; None when there is one."""
    try:
        find_host()
    except FileNotFoundError as missing:
        return str(missing)
    return None
