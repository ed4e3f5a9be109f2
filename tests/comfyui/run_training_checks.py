"""Runs the checks of `training_cases` in ComfyUI's Python, without a server, and writes what came of each:

    python run_training_checks.py COMFYUI_PATH REPORT [--thorough]
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path

from run_patcher_checks import start_host
from training_cases import BRIEF, THOROUGH


def main(comfyui: Path, report: Path, is_thorough: bool) -> None:
    """One that fails does not end the others."""
    sys.argv = sys.argv[:1]
    start_host(comfyui, "cpu", False)
    found: dict[str, str] = {}
    for case in THOROUGH if is_thorough else BRIEF:
        module, check, name = case
        try:
            getattr(importlib.import_module(module), check)(name)
            found[" ".join(case)] = ""
        except Exception:
            found[" ".join(case)] = traceback.format_exc()
        report.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--thorough" in sys.argv)
