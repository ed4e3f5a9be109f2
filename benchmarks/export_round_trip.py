"""Pair -> LoRA file -> other readers: sampled latents against those of the pair itself at fixed weights, by family.

    python benchmarks/export_round_trip.py [COMFYUI_PATH COMFYUI_PYTHON]

Differences are norms, relative to the latents; the largest of a family's models. diffusers reads by `load_lora_weights` in its
pipelines, ComfyUI by its own LoRA loader and by ours, on tiny models of random weights in float32. About a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "core"))

from test_lora_export import PIPELINES_TRIED, pipeline_round_trip  # noqa: E402

COLUMNS = {
    "effect": "effect of the pair",
    "diffusers": "diffusers",
    "comfyui, stock": "Load LoRA, comfyui",
    "kohya, stock": "Load LoRA, kohya",
    "kohya, ours": "our nodes, kohya",
    "diffusers, ours": "our nodes, diffusers",
}
FAMILIES = {"wan experts": "wan", "hunyuan 1.5": "hunyuan"}


def main(comfyui: str = "", python: str = "") -> None:
    """Prints the table."""
    largest: dict[str, dict[str, float]] = defaultdict(dict)
    counts: dict[str, int] = defaultdict(int)

    def note(family: str, column: str, value: float) -> None:
        largest[family][column] = max(value, largest[family].get(column, 0.0))

    for name in PIPELINES_TRIED:
        with tempfile.TemporaryDirectory() as folder:
            expected, plain, found = pipeline_round_trip(name, Path(folder))
        note(FAMILIES.get(name, name), "effect", float((expected - plain).norm() / expected.norm()))
        note(FAMILIES.get(name, name), "diffusers", float((found - expected).norm() / expected.norm()))
    if comfyui:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            runner = ROOT / "tests" / "comfyui" / "run_export_checks.py"
            subprocess.run([python, runner, comfyui, report], check=True, capture_output=True, cwd=runner.parent)
            models = json.loads(report.read_text(encoding="utf-8"))
        for name, figures in models.items():
            family = figures.pop("family") + (" (INT8)" if name.endswith("int8") else "")
            counts[family] += 1
            for column, value in figures.items():
                note(family, column, value)
    print(f"torch {torch.__version__}")
    print("| family | models in ComfyUI | " + " | ".join(COLUMNS.values()) + " |")
    print("|" + " --- |" * (len(COLUMNS) + 2))
    for family, figures in largest.items():
        cells = [f"{figures[column]:.1e}" if column in figures else "-" for column in COLUMNS]
        print(f"| {family} | {counts.get(family, 0)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
