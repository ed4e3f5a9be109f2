"""Kills a training run with SIGKILL at random moments, resumes it each time, and compares the pair with an undisturbed run's.

python benchmarks/kill_and_resume.py --kills 10
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dualreal_core.toyworld.trial import Trial


def command(folder: Path, name: str, steps: int, is_resumed: bool) -> list[str]:
    """The training command of one run."""
    call = [sys.executable, "-m", "dualreal_core.cli", "train", "--identity", str(folder / "identity"), "--motion", str(folder / "motion")]
    call += ["--out", str(folder / f"{name}.safetensors"), "--steps", str(steps), "--save-every", "10"]
    return call + (["--resume"] if is_resumed else [])


def steps_done(run: Path) -> int:
    """Steps a run has written down."""
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def compare(kills: int, steps: int, seed: int = 0) -> dict[str, object]:
    """Runs both; returns the hashes of both pair files and the steps after which the kills came."""
    chance = random.Random(seed)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        trial = Trial("tam", "box")
        trial.write_photos(folder / "identity")
        trial.write_clips(folder / "motion")
        subprocess.run(command(folder, "whole", steps, False), env=environment, check=True, capture_output=True)
        killed_at, started = [], folder / "killed.safetensors.run" / "run.json"
        for target in sorted(chance.randrange(steps) for _ in range(kills)):
            process = subprocess.Popen(
                command(folder, "killed", steps, started.exists()), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            while process.poll() is None and steps_done(started.parent) < target:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))
            process.kill()
            process.wait()
            killed_at.append(steps_done(started.parent))
        subprocess.run(command(folder, "killed", steps, started.exists()), env=environment, check=True, capture_output=True)
        digests = [hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("whole", "killed")]
        lines = [(folder / f"{name}.safetensors.run" / "metrics.jsonl").read_text() for name in ("whole", "killed")]
    return {
        "whole": digests[0],
        "killed": digests[1],
        "is_identical": digests[0] == digests[1] and lines[0] == lines[1],
        "killed_at": killed_at,
    }


def main() -> int:
    """Prints the result as JSON; fails where the files differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result = compare(arguments.kills, arguments.steps, arguments.seed)
    print(json.dumps(result, indent=1))
    return 0 if result["is_identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
