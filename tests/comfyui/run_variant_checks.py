"""Runs `variant_checks` on every model of `variants`, in ComfyUI's Python, and prints the matrix of what came:

    python run_variant_checks.py COMFYUI_PATH [--report REPORT.json] [--only NAME ...] [--checks CHECK ...] [--device cuda]

The report has, by model and check, 'ok', 'refused', 'none' (nothing to try) or 'FAILED', and why.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import shutil
import sys
import time
import traceback
from pathlib import Path

from run_patcher_checks import start_host
from variants import VARIANTS

SHOWN = {"ok": "ok", "refused": "no", "none": "-", "FAILED": "FAILED"}
Report = dict[str, dict[str, tuple[str, str]]]


def main() -> None:
    """Runs every check; one that fails does not end the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), help="names of models")
    parser.add_argument("--checks", nargs="*", help="names of checks")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--times", action="store_true", help="print the seconds of each check")
    arguments = parser.parse_args()
    begin = time.perf_counter()
    start_host(arguments.comfyui, arguments.device, False)
    checks = importlib.import_module("variant_checks")
    refusal = importlib.import_module("dualreal_pack.dualreal_core.errors").InputError
    gc.freeze()  # ComfyUI collects garbage after each sampling, which what was imported would make slow
    folder = checks.checkpoint_folder()
    report: Report = {}
    for name in arguments.only:
        bench, came = checks.Bench(name, folder), {}
        for title, check in checks.CHECKS.items():
            if arguments.checks and title not in arguments.checks:
                continue
            started = time.perf_counter()
            try:
                reason = check(bench)
                came[title] = ("none", reason) if reason else ("ok", "")
            except refusal as error:
                came[title] = "refused", str(error)
            except Exception:
                came[title] = "FAILED", traceback.format_exc()
            if arguments.times:
                print(f"{time.perf_counter() - started:6.2f} {name}, {title}: {came[title][0]}", flush=True)
        report[name] = came
        if arguments.report:
            arguments.report.write_text(json.dumps(report, indent=1), encoding="utf-8")
    shutil.rmtree(folder)
    print(matrix(report))
    print(f"\n{len(report)} models, {time.perf_counter() - begin:.0f} s")
    sys.exit(any(status == "FAILED" for came in report.values() for status, _ in came.values()))


def matrix(report: Report) -> str:
    """A table of models and checks, and below it each sentence with which one is refused."""
    titles = list(next(iter(report.values())))
    rows = [["model", "class", *titles]]
    sentences: dict[str, int] = {}
    for name, came in report.items():
        cells = []
        for status, why in came.values():
            mark = f" {sentences.setdefault(why, len(sentences) + 1)}" if status == "refused" else ""
            cells.append(SHOWN[status] + mark)
        rows.append([VARIANTS[name].title, VARIANTS[name].dit, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    notes = [f"no {number}: {sentence}" for sentence, number in sentences.items()]
    failures = [f"{name}, {title}:\n{why}" for name, came in report.items() for title, (status, why) in came.items() if status == "FAILED"]
    return "\n".join([*lines, "", *notes, *failures])


if __name__ == "__main__":
    main()
