"""Training of every model that trains: gradients, resume, what the model is called with; and how clips tell their first frame.

Without a server: `run_training_checks` runs all of it in ComfyUI's Python, in one process.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from training_cases import ALL

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def report(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each check: nothing, or the traceback."""
    file = tmp_path_factory.mktemp("training") / "report.json"
    done = subprocess.run([comfy_host.python, HERE / "run_training_checks.py", comfy_host.path, file], capture_output=True, text=True)
    assert file.exists(), done.stderr[-4000:]
    return {"": done.stderr[-4000:], **json.loads(file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case[1]}[{case[2]}]")
def test_models_train_as_they_sample(report: dict[str, str], case: tuple[str, str, str]) -> None:
    found = report.get(" ".join(case), f"it was not reached:\n{report['']}")
    assert not found, found
