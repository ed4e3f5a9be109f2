"""Runs `export_checks` on the models of `variants`, in ComfyUI's Python, and writes the figures as JSON:

    python run_export_checks.py COMFYUI_PATH REPORT.json [NAME ...]

`benchmarks/export_round_trip.py` makes a table of them.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from run_patcher_checks import start_host
from variants import VARIANTS


def main(comfyui: str, report: str, *names: str) -> None:
    """By model, the effect of the pair and the differences of each reader."""
    start_host(Path(comfyui), "cpu", False)
    checks = importlib.import_module("export_checks")
    folder, found = Path(tempfile.mkdtemp(prefix="export-checks-")), {}
    for name in names or VARIANTS:
        bench = importlib.import_module("variant_bench").Bench(name, folder)
        found[name] = {"family": bench.pair("lora").config.family, **checks.round_trips(bench)}
        Path(report).write_text(json.dumps(found, indent=1), encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
