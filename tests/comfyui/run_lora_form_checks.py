"""Runs `lora_form_checks` on forms of LoRA files in ComfyUI's Python, apart from the tests, and writes what came of each:

    python run_lora_form_checks.py COMFYUI_PATH REPORT.json [--only NAME ...] [--sampled NAME ...] [--stock]

By name of the form: the errors of ours and, with --stock, of the stock loader, what either says, and what of ours is off.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from run_patcher_checks import start_host

sys.path.append(str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Runs every form; one that fails does not end the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--only", nargs="*", help="names of forms")
    parser.add_argument("--sampled", nargs="*", default=[], help="names of forms that are also sampled with, and tried at half strength")
    parser.add_argument("--stock", action="store_true", help="the stock loader too")
    arguments = parser.parse_args()
    start_host(arguments.comfyui, "cpu", False)
    checks = importlib.import_module("lora_form_checks")
    forms = checks.lora_forms.FORMS
    gc.freeze()  # ComfyUI collects garbage after each sampling, which what was imported would make slow
    benches: dict[str, object] = {}
    report: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number, (name, form) in enumerate(forms.items()):
            if arguments.only and name not in arguments.only:
                continue
            begin, folder = time.perf_counter(), Path(temporary) / str(number)
            bench = benches.setdefault(form.base, checks.FormBench(form.base, Path(temporary)))
            try:
                report[name] = row(checks, bench, form, folder, arguments.stock, name in arguments.sampled)
            except Exception:
                report[name] = {"failed": traceback.format_exc()}
            report[name]["seconds"] = time.perf_counter() - begin
            arguments.report.write_text(json.dumps(report, indent=1), encoding="utf-8")


def row(checks: object, bench: object, form: object, folder: Path, with_stock: bool, is_sampled: bool) -> dict[str, object]:
    """What came of a form."""
    sheet, path = bench.written(form, folder)
    ours, off = checks.by_ours(bench, form, sheet, path)
    came = {"ours": ours.error, "said": ours.said, "off": off, "left out": sheet.left_out}
    if with_stock:
        stock = checks.by_stock(bench, sheet, path)
        came |= {"stock": stock.error, "stock said": stock.said}
    if is_sampled and ours.error is not None:
        came["sampled"] = checks.sampling_error(bench, form, sheet, path)
        if form.base == "wan":
            came["float8"] = checks.error_in_float8(form, bench.folder)
        came["heard"] = checks.heard_without_audio_strength(bench, form, sheet, path)
        came["at half"] = checks.error_at_half(bench, form, sheet, path)
    return came


if __name__ == "__main__":
    main()
