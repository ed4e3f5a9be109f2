"""What a pair costs at its places in the DiT, measured side by side in one process and one thread of the CPU:

    python benchmarks/sites.py --out FOLDER [--parts sampling,kept] [--rounds 9] [--quick]

`sampling`: one call against the base, merged LoRA, peft and the published implementation's arithmetic. `training`: one step against
peft and that arithmetic, with FLOPs. `kept`: what autograd keeps. `counts`: kernels and copies on the tests' stand-in for an
accelerator. `compile`: graphs, breaks and recompilations. Ratios are of thread CPU time: medians over rounds in which all arms take
turns, with quartiles. FOLDER gets sites.json, with all raw figures, and sites.md. What fails is a line with its reason.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from gpu_check import printed_by
from gpu_parts.part_names import names_among
from gpu_parts.report import table
from site_parts import compiled, counts, kept, sampling, training
from site_parts.measuring import Row, reason

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"counts": counts.run, "kept": kept.run, "compile": compiled.run, "sampling": sampling.run, "training": training.run}
"""By name, what yields the lines of a part, given whether sizes are tiny and the number of rounds."""
ROUNDS, QUICK_ROUNDS = 9, 2
PACKAGES = ("torch", "diffusers", "peft")


def main() -> int:
    """Runs the parts, writes and prints what came of them; 1 where a part broke down as a whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for sites.json and sites.md")
    parser.add_argument("--parts", type=names_among(PARTS), default=list(PARTS), help=f"comma-separated: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=positive, help=f"how often all arms take their turn (default: {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests; ratios mean nothing then")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {"machine": describe_machine(arguments.quick), "parts": {}}
    for name in arguments.parts:
        begun, rows, failure = time.monotonic(), [], None
        try:
            for row in PARTS[name](arguments.quick, rounds):
                rows.append(row)
        except Exception as error:
            failure = reason(error)
        results["parts"][name] = {"seconds": time.monotonic() - begun, "failure": failure, "rows": [row.shown | row.raw for row in rows]}
        results["parts"][name]["shown"] = [row.shown for row in rows]
        print("\n".join(part_lines(name, failure, rows)), flush=True)
        write(arguments.out, results)
    return 1 if any(part["failure"] for part in results["parts"].values()) else 0


def positive(text: str) -> int:
    """A number of rounds."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds; give a whole number from 1")
    return int(text)


def describe_machine(is_tiny: bool) -> Mapping[str, str | int]:
    """What figures depend on, and when they were taken."""
    cores = Path("/proc/cpuinfo")
    lines = cores.read_text(encoding="utf-8").splitlines() if cores.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    sizes = {"sizes": "tiny, ratios mean nothing"} if is_tiny else {}
    return {
        "CPU": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        **packages,
        "Python": platform.python_version(),
        "commit": printed_by("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **sizes,
    }


def part_lines(name: str, failure: str | None, rows: list[Row]) -> list[str]:
    """A part as Markdown."""
    stopped = [f"Stopped: {failure}", ""] if failure else []
    return [f"### {name}", "", *stopped, *table([row.shown for row in rows]), ""]


def write(folder: Path, results: Mapping[str, object]) -> None:
    """Both files, with what there is so far."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    lines = [f"{machine}.", ""]
    for name, part in results["parts"].items():
        lines += part_lines(name, part["failure"], [Row(shown) for shown in part["shown"]])
    (folder / "sites.md").write_text("\n".join(lines), encoding="utf-8")
    kept_parts = {name: {key: value for key, value in part.items() if key != "shown"} for name, part in results["parts"].items()}
    (folder / "sites.json").write_text(json.dumps({**results, "parts": kept_parts}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
