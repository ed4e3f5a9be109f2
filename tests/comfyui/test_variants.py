"""`variant_checks` on every model of `variants`: tiny random ones by ComfyUI's stock loader, sampled and trained on without a server.

`python tests/comfyui/run_variant_checks.py COMFYUI_PATH` prints the matrix.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from variants import VARIANTS

HERE = Path(__file__).parent
COLUMNS = {
    "apply": ("untrained", "acts", "negative", "cfg 1", "batch 2", "mask", "samplers", "sound", "stage", "LoRA", "detached"),
    "blend": ("blend",),
    "train": ("step 0", "gradients", "resumes"),
}
"""Checks by what they are of."""


NUM_PROCESSES = 2


@pytest.fixture(scope="module")
def report(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[str, str]]]:
    """What came of each check of each model."""
    folder, names = tmp_path_factory.mktemp("variants"), list(VARIANTS)
    files = [folder / f"{number}.json" for number in range(NUM_PROCESSES)]
    command = [comfy_host.python, HERE / "run_variant_checks.py", comfy_host.path]
    halves = [[*command, "--report", file, "--only", *names[number::NUM_PROCESSES]] for number, file in enumerate(files)]
    processes = [subprocess.Popen(half, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for half in halves]
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for process, file in zip(processes, files, strict=True):
        _, errors = process.communicate()
        assert file.exists(), errors[-4000:]
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", VARIANTS)
def test_on_every_model(report: dict[str, dict[str, tuple[str, str]]], name: str, columns: str) -> None:
    came = report[name]
    wrong = {check: why for check in COLUMNS[columns] for status, why in [came[check]] if status not in ("ok", "none")}
    assert not wrong, "\n".join(f"{check}: {why}" for check, why in wrong.items())


def test_no_check_is_left_out(report: dict[str, dict[str, tuple[str, str]]]) -> None:
    named = {check for checks in COLUMNS.values() for check in checks}
    assert all(set(came) == named for came in report.values()) and set(report) == set(VARIANTS)
    tried = {check for came in report.values() for check, (status, _) in came.items() if status == "ok"}
    assert tried == named, "a check that no model was tried on"
