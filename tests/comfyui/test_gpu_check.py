"""The part of benchmarks/gpu_check.py that needs ComfyUI; tests/core/test_gpu_check.py runs the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfy_host import ComfyHost

CHECK = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


@pytest.mark.thorough
def test_checks_on_patchers_run_on_the_cpu(comfy_host: ComfyHost, tmp_path: Path) -> None:
    environment = {**os.environ, "COMFYUI_PATH": str(comfy_host.path), "COMFYUI_PYTHON": str(comfy_host.python)}
    command = [sys.executable, CHECK, "--cpu", "--tiny", "--out", tmp_path, "--parts", "patcher tests"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
