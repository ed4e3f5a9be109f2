"""Training of every model that trains: gradients, resume, what the model is called with; and how clips tell their first frame.

Without a server: `run_training_checks` runs all of it in ComfyUI's Python, in one process.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from training_cases import BRIEF, THOROUGH

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """What comes of each check, those at length or the others: nothing, or the traceback."""

    @cache
    def report(*options: str) -> dict[str, str]:
        file = tmp_path_factory.mktemp("training") / "report.json"
        command = [comfy_host.python, HERE / "run_training_checks.py", comfy_host.path, file, *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert file.exists(), done.stderr[-4000:]
        return {"": done.stderr[-4000:], **json.loads(file.read_text(encoding="utf-8"))}

    return report


@pytest.mark.parametrize("case", BRIEF, ids=lambda case: f"{case[1]}[{case[2]}]")
def test_models_train_as_they_sample(run: Callable[..., dict[str, str]], case: tuple[str, str, str]) -> None:
    check_report(run(), case)


@pytest.mark.thorough
@pytest.mark.parametrize("case", THOROUGH, ids=lambda case: f"{case[1]}[{case[2]}]")
def test_models_train_exactly(run: Callable[..., dict[str, str]], case: tuple[str, str, str]) -> None:
    check_report(run("--thorough"), case)


def check_report(report: dict[str, str], case: tuple[str, str, str]) -> None:
    found = report.get(" ".join(case), f"it was not reached:\n{report['']}")
    assert not found, found
