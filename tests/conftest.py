"""Tests import the modules that lie beside them; one ComfyUI server serves all folders that need one."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("core", "comfyui", "canvas", "")]
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

pytest_plugins = ["comfy_session"]
