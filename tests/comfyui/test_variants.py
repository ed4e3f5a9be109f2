"""`variant_checks` on every model of `variants`: tiny random ones by ComfyUI's stock loader, sampled and trained on without a server.

`python tests/comfyui/run_variant_checks.py COMFYUI_PATH` prints the matrix.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from variants import VARIANTS

HERE = Path(__file__).parent
Report = dict[str, dict[str, tuple[str, str]]]
"""By model and check: what came of it, and why."""
COLUMNS = {
    "apply": ("untrained", "acts", "negative", "cfg 1", "batch 2", "mask", "samplers", "sound", "stage", "LoRA", "export", "detached"),
    "blend": ("blend", "two LoRAs", "compared", "gate", "text"),
    "train": ("step 0", "gradients", "resumes"),
}
"""Checks by what they are of."""

BRIEF = ("wan22_i2v", "wan22_5b", "wan_animate2", "wan_causal", "hunyuan15", "kandinsky5", "cogvideox", "ltx23", "h3_int8")
"""Models that differ most in how they call their blocks; the others are tried at length."""
REST = tuple(name for name in VARIANTS if name not in BRIEF)
NUM_PROCESSES = 2


@pytest.fixture(scope="module")
def run(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Report]:
    """What comes of each check of some models."""

    @cache
    def report(names: tuple[str, ...]) -> Report:
        folder = tmp_path_factory.mktemp("variants")
        files = [folder / f"{number}.json" for number in range(NUM_PROCESSES)]
        command = [comfy_host.python, HERE / "run_variant_checks.py", comfy_host.path]
        halves = [[*command, "--report", file, "--only", *names[number::NUM_PROCESSES]] for number, file in enumerate(files)]
        processes = [subprocess.Popen(half, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for half in halves]
        found: Report = {}
        for process, file in zip(processes, files, strict=True):
            _, errors = process.communicate()
            assert file.exists(), errors[-4000:]
            found |= json.loads(file.read_text(encoding="utf-8"))
        return found

    return report


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", BRIEF)
def test_on_models_of_every_kind(run: Callable[[tuple[str, ...]], Report], name: str, columns: str) -> None:
    check_report(run(BRIEF), name, columns)


@pytest.mark.thorough
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", REST)
def test_on_every_other_model(run: Callable[[tuple[str, ...]], Report], name: str, columns: str) -> None:
    check_report(run(REST), name, columns)


def check_report(report: Report, name: str, columns: str) -> None:
    came = report[name]
    wrong = {check: why for check in COLUMNS[columns] for status, why in [came[check]] if status not in ("ok", "none")}
    assert not wrong, "\n".join(f"{check}: {why}" for check, why in wrong.items())


def test_no_check_is_left_out(run: Callable[[tuple[str, ...]], Report]) -> None:
    report, named = run(BRIEF), {check for checks in COLUMNS.values() for check in checks}
    assert all(set(came) == named for came in report.values()) and set(report) == set(BRIEF)
    tried = {check for came in report.values() for check, (status, _) in came.items() if status == "ok"}
    assert tried == named, "a check that no model was tried on"
