"""Everything that only a GPU can show, in one command, offline, in at most eight minutes:

    python benchmarks/gpu_check.py --out FOLDER [--markdown FILE]

It runs the tests that carry the marker `gpu`, measures training and sampling at the sizes of real models, runs the demo, and
tries torch.compile. Each part is a process of its own with a time limit, the most telling parts first. FOLDER keeps what
came of each: repeated, the command goes on with the parts that have not passed. It ends with code 0 where every assertion
held, and 1 otherwise. `--cpu --tiny` tries the check itself. docs/gpu.md says what a machine needs.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gpu_parts.part_names import names_among
from gpu_parts.report import markdown

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "benchmarks" / "gpu_parts"
CARRIED = ROOT / ".gpu"
"""What scripts/pack_for_gpu.py brings along."""
GPU_BUDGET_S, CPU_BUDGET_S = 480.0, 3600.0


@dataclass(frozen=True)
class Part:
    """A program, the name it is given, what it takes at least on an H100, and when it is stopped."""

    program: str
    argument: str | None
    least_s: float
    limit_s: float


PARTS = {
    "core tests": Part("marked_tests.py", "core", 30, 150),
    "patcher tests": Part("marked_tests.py", "patchers", 40, 180),
    "wan-1.3b": Part("speed.py", "wan-1.3b", 20, 90),
    "wan-14b": Part("speed.py", "wan-14b", 60, 150),
    "cogvideox-5b": Part("speed.py", "cogvideox-5b", 40, 120),
    "demo": Part("demo.py", None, 40, 180),
    "compile": Part("compiled.py", None, 20, 120),
}


def main() -> int:
    """Runs the parts that have not passed, prints and writes what came of all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu_check.json and gpu_check.log")
    parser.add_argument("--markdown", type=Path, help="file for the tables that go into docs/gpu.md")
    parser.add_argument("--parts", type=names_among(PARTS), default=list(PARTS), help=f"comma-separated: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--budget", type=float, help=f"seconds after which no part is begun (default: {GPU_BUDGET_S:.0f} on a GPU)")
    parser.add_argument("--cpu", action="store_true", help="on the CPU; only with --tiny")
    parser.add_argument("--tiny", action="store_true", help="tiny models, no assertion on time, memory or scores")
    arguments = parser.parse_args()
    if arguments.cpu and not arguments.tiny:
        parser.error("--cpu takes days without --tiny: give both.")
    device = "cpu" if arguments.cpu else "cuda"
    environment = part_environment(device)
    absence = device_absence(device, environment)
    if absence:
        print(f"gpu_check: torch finds no GPU here ({absence}): --cpu --tiny tries the check itself.", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    file, log = arguments.out / "gpu_check.json", arguments.out / "gpu_check.log"
    machine = describe_machine(device, arguments.tiny)
    state = read_state(file, machine)
    budget = arguments.budget or (CPU_BUDGET_S if arguments.cpu else GPU_BUDGET_S)
    begun = time.monotonic()
    for name in arguments.parts:
        left = budget - (time.monotonic() - begun)
        if state["parts"].get(name, {}).get("result") == "passed":
            print(f"{name}: passed before", flush=True)
            continue
        if left < PARTS[name].least_s:
            state["parts"][name] = {"result": "not begun: no time left", "seconds": 0.0, "checks": [], "rows": []}
        else:
            options = ["--device", device, *["--tiny"] * arguments.tiny]
            limit_s = left if arguments.cpu else min(left, PARTS[name].limit_s)
            state["parts"][name] = run_part(PARTS[name], options, limit_s, environment, log)
        print(f"{name}: {state['parts'][name]['result']} after {state['parts'][name]['seconds']:.0f} s", flush=True)
        file.write_text(json.dumps(state, indent=1), encoding="utf-8")
    report = markdown(state)
    print(f"\n{report}\nall results: {file}, what the parts printed: {log}")
    if arguments.markdown:
        arguments.markdown.write_text(report, encoding="utf-8")
    return 0 if all(state["parts"][name]["result"] == "passed" for name in arguments.parts) else 1


def part_environment(device: str) -> dict[str, str]:
    """This checkout's core, the ComfyUI that was brought along, and no network."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    given = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "HF_HUB_OFFLINE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    carried = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} if device == "cpu" else {}
    if (CARRIED / "ComfyUI").exists() and "COMFYUI_PATH" not in os.environ:
        carried |= {"COMFYUI_PATH": str(CARRIED / "ComfyUI"), "COMFYUI_PYTHON": os.environ.get("COMFYUI_PYTHON", sys.executable)}
    return {**os.environ, **given, **carried, "DUALREAL_TEST_DEVICE": device}


def device_absence(device: str, environment: dict[str, str]) -> str | None:
    """Why torch cannot use the device; None where it can."""
    program = f"import torch; torch.empty(0, device={device!r})"
    asked = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    return (asked.stderr.strip().splitlines() or ["unknown"])[-1] if asked.returncode else None


def describe_machine(device: str, is_tiny: bool) -> dict[str, str]:
    """What figures depend on, and when they were taken."""
    card = {"CPU": platform.machine()}
    if device == "cuda":
        asked = printed_by("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader").splitlines()
        name, memory, driver = asked[0].split(", ") if asked else ("unknown", "unknown", "unknown")
        card = {"GPU": f"{name} ({memory})", "driver": driver}
    commit = printed_by("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    if not commit and (CARRIED / "commit").exists():
        commit = (CARRIED / "commit").read_text(encoding="utf-8").strip()
    packages = {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    sizes = {"sizes": "tiny, figures mean nothing"} if is_tiny else {}
    return {**card, **packages, "Python": platform.python_version(), "commit": commit or "unknown", "date": today, **sizes}


def printed_by(*command: str) -> str:
    """What a command prints; nothing where it fails or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def read_state(file: Path, machine: dict[str, str]) -> dict[str, dict]:
    """What earlier calls found on this machine and commit, or nothing."""
    if file.exists():
        state = json.loads(file.read_text(encoding="utf-8"))
        if {**state["machine"], "date": ""} == {**machine, "date": ""}:
            return state
        print("The folder holds results of another machine, commit or size: all parts are run.")
    return {"machine": machine, "parts": {}}


def run_part(part: Part, options: list[str], limit_s: float, environment: dict[str, str], log: Path) -> dict[str, object]:
    """Runs a part's program; what it found, also where it was stopped or broke down."""
    found = log.with_suffix(".part.json")
    found.unlink(missing_ok=True)
    command = [sys.executable, str(PROGRAMS / part.program), *([part.argument] if part.argument else []), "--out", str(found), *options]
    begun, result = time.monotonic(), None
    with log.open("a", encoding="utf-8") as printed:
        printed.write(f"\n$ {' '.join(command)}\n")
        printed.flush()
        process = subprocess.Popen(
            command, env=environment, stdout=printed, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            status = process.wait(limit_s)
            result = f"ended with code {status}" if status else None
        except subprocess.TimeoutExpired:
            result = f"stopped after {limit_s:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
    outcome = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {"checks": [], "rows": []}
    found.unlink(missing_ok=True)
    held = [one["held"] for one in outcome["checks"]]
    result = result or ("failed" if False in held else "passed" if True in held else "nothing was tried")
    if result.startswith("ended"):
        print("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-15:]))
    return {"result": result, "seconds": time.monotonic() - begun, **outcome}


if __name__ == "__main__":
    sys.exit(main())
