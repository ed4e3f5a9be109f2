"""Runs `patcher_checks` in ComfyUI's Python, apart from the tests, and writes what came of each:

    python run_patcher_checks.py COMFYUI_PATH REPORT.json [--device cuda] [--dynamic] [--brief] [--only TITLE...]

--dynamic starts the host's dynamic VRAM first, as its server does. The report has 'passed', 'failed' or 'skipped', and why.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import traceback
from pathlib import Path
from unittest.mock import MagicMock

from patcher_cases import cases, title

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
VIDEO_MODULES = ("av", "av.container", "av.subtitles", "av.subtitles.stream", "av.video", "av.video.reformatter")


def start_host(comfyui: Path, device: str, is_dynamic: bool) -> str | None:
    """Makes ComfyUI and the pack importable, and starts what its main.py starts first; why that failed, or None."""
    sys.path[:0] = [str(comfyui), str(BENCHMARKS)]
    sys.argv = [sys.argv[0], "--use-pytorch-cross-attention", *(["--cpu"] if device == "cpu" else [])]  # as on most GPUs
    if importlib.util.find_spec("av") is None:  # large, and of no use to what has no videos
        sys.modules.update(dict.fromkeys(VIDEO_MODULES, MagicMock()))
    importlib.import_module("comfy.options").enable_args_parsing()
    if is_dynamic:
        control = importlib.import_module("comfy_aimdo.control")
        control.init()  # before anything allocates
        devices = importlib.import_module("comfy.model_management").get_all_torch_devices()
        if device == "cpu" or not control.init_devices([(one.index, 0) for one in devices]):
            return "comfy-aimdo finds no device that it serves"
        patchers = importlib.import_module("comfy.model_patcher")
        patchers.CoreModelPatcher = patchers.ModelPatcherDynamic
        importlib.import_module("comfy.memory_management").aimdo_enabled = True
    importlib.import_module("overhead").load_pack()
    return None


def main() -> None:
    """Runs every check; one that fails does not end the others."""
    parser = argparse.ArgumentParser()
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--only", nargs="*", help="titles of checks")
    arguments = parser.parse_args()
    absence = start_host(arguments.comfyui, arguments.device, arguments.dynamic)
    checks = None if absence else importlib.import_module("patcher_checks")
    report: dict[str, tuple[str, str]] = {}
    for name, case in cases(arguments.dynamic, arguments.brief):
        if arguments.only and title(name, case) not in arguments.only:
            continue
        try:
            reason = absence or getattr(checks, name)(*case)
            report[title(name, case)] = ("skipped", reason) if reason else ("passed", "")
        except Exception:
            report[title(name, case)] = "failed", traceback.format_exc()
        arguments.report.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
