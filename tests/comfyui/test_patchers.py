"""`patcher_checks` on a GPU: the pack on ComfyUI's own patchers and samplers, without a server, also under its dynamic VRAM.

Skipped without one. DUALREAL_TEST_DEVICE=cpu runs a part of them on the CPU, which shows that the checks themselves work.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from patcher_cases import cases, title

HERE = Path(__file__).parent
DEVICE = os.environ.get("DUALREAL_TEST_DEVICE", "cuda")
IS_BRIEF = DEVICE == "cpu"
FIND_DEVICE = f"import torch; torch.empty(0, device={DEVICE!r})"
MODES = {False: "plain", True: "dynamic VRAM"}

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def report(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], dict[str, list[str]]]:
    """What came of each check, by whether the host's dynamic VRAM was on; skips where ComfyUI's Python has no such device."""
    asked = subprocess.run([comfy_host.python, "-c", FIND_DEVICE], capture_output=True, text=True)
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["unknown"])[-1]
        pytest.skip(f"ComfyUI's Python has no {DEVICE} ({reason}); DUALREAL_TEST_DEVICE=cpu tries these on the CPU")

    @cache
    def run(is_dynamic: bool) -> dict[str, list[str]]:
        if is_dynamic and DEVICE == "cpu":
            pytest.skip("dynamic VRAM serves no CPU")
        file = tmp_path_factory.mktemp("patchers") / "report.json"
        options = ["--device", DEVICE, *["--dynamic"] * is_dynamic, *["--brief"] * IS_BRIEF]
        done = subprocess.run(
            [comfy_host.python, HERE / "run_patcher_checks.py", comfy_host.path, file, *options], capture_output=True, text=True
        )
        assert file.exists(), done.stderr[-4000:]
        return {"": ["", done.stderr[-4000:]], **json.loads(file.read_text(encoding="utf-8"))}

    return run


@pytest.mark.parametrize(
    ("is_dynamic", "case"),
    [
        pytest.param(is_dynamic, title(*case), id=f"{MODES[is_dynamic]}: {title(*case)}")
        for is_dynamic in MODES
        for case in cases(is_dynamic, IS_BRIEF)
    ],
)
def test_on_patchers(report: Callable[[bool], dict[str, list[str]]], is_dynamic: bool, case: str) -> None:
    found = report(is_dynamic)
    came, why = found.get(case, ["failed", f"it was not reached:\n{found[''][1]}"])
    if came == "skipped":
        pytest.skip(why)
    assert came == "passed", why
