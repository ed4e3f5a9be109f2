"""benchmarks/gpu_check.py: it works before there is a GPU, and what breaks down in one part does not take the others along."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
IN_COMFYUI = "patcher tests"
FOUND = {"checks": [{"name": "a", "held": True, "found": ""}], "rows": [{"what": "call", "ms": 1.5}]}
PROGRAM = "import json, pathlib, sys, time\nfile = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
WRITES = f"file.write_text(json.dumps({FOUND!r}))\n"
PROGRAMS = {
    "holds": WRITES,
    "does not hold": WRITES.replace("True", "False"),
    "breaks": WRITES + "raise RuntimeError('broken down')\n",
    "hangs": WRITES + "time.sleep(60)\n",
    "tries nothing": WRITES.replace("True", "None"),
    "comes last": WRITES,
}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, dict]]:
    """Runs the check with parts of our own: its exit code, and what it keeps."""
    module = load_script(monkeypatch)
    (tmp_path / "programs").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "programs" / f"{name}.py").write_text(PROGRAM + text)
    monkeypatch.setattr(module, "PROGRAMS", tmp_path / "programs")
    monkeypatch.setattr(module, "device_absence", lambda device, environment: None)
    monkeypatch.setattr(module, "PARTS", {name: module.Part(f"{name}.py", None, 0.1, 3 if name == "hangs" else 60) for name in PROGRAMS})

    def run(*options: str) -> tuple[int, dict]:
        written = ["--out", str(tmp_path), "--markdown", str(tmp_path / "gpu.md")]
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--tiny", *written, *options])
        return module.main(), json.loads((tmp_path / "gpu_check.json").read_text())["parts"]

    return run


def load_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("gpu_check", BENCHMARKS / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.thorough
def test_all_parts_run_on_the_cpu(tmp_path: Path):
    """But for the one that needs ComfyUI, which tests/comfyui runs."""
    shown = subprocess.run([sys.executable, BENCHMARKS / "gpu_check.py", "--help"], capture_output=True, text=True, check=True).stdout
    names = " ".join(shown.split()).partition("comma-separated: ")[2].partition(" (default")[0].split(", ")
    parts = [name for name in names if name != IN_COMFYUI]
    assert len(parts) == len(names) - 1 >= 6
    command = [sys.executable, BENCHMARKS / "gpu_check.py", "--cpu", "--tiny", "--out", tmp_path, "--markdown", tmp_path / "gpu.md"]
    done = subprocess.run([*command, "--parts", ",".join(parts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    state = json.loads((tmp_path / "gpu_check.json").read_text())
    assert list(state["parts"]) == parts and all(state["machine"].values())
    rows = [row for part in state["parts"].values() for row in part["rows"]]
    assert {row.get("with") for row in rows} >= {"base", "LoRA pair", "bottleneck pair", "peft LoRA 32"}
    assert (tmp_path / "gpu.md").read_text() in done.stdout


def test_parts_that_break_down_leave_the_others(check: Callable[..., tuple[int, dict]], tmp_path: Path, capsys: pytest.CaptureFixture):
    code, parts = check()
    assert code == 1
    assert {name: part["result"] for name, part in parts.items()} == {
        "holds": "passed",
        "does not hold": "failed",
        "breaks": "ended with code 1",
        "hangs": "stopped after 3 s",
        "tries nothing": "nothing was tried",
        "comes last": "passed",
    }
    assert all(part["rows"] == FOUND["rows"] for part in parts.values()), "what was found before is lost"
    assert "broken down" in capsys.readouterr().out
    assert "| breaks | ended with code 1 |" in (tmp_path / "gpu.md").read_text()


def test_repeated_it_goes_on_with_what_has_not_passed(check: Callable[..., tuple[int, dict]], tmp_path: Path):
    check("--parts", "holds,breaks")
    for name in ("holds", "breaks"):
        (tmp_path / "programs" / f"{name}.py").write_text(PROGRAM + WRITES.replace("1.5", "2.5"))
    code, parts = check("--parts", "holds,breaks")
    assert code == 0
    assert {name: part["rows"][0]["ms"] for name, part in parts.items()} == {"holds": 1.5, "breaks": 2.5}


def test_no_part_is_begun_without_time_left(check: Callable[..., tuple[int, dict]]):
    code, parts = check("--parts", "holds", "--budget", "0.05")
    assert code == 1 and parts["holds"]["result"] == "not begun: no time left"


def test_results_of_another_machine_are_not_kept(check: Callable[..., tuple[int, dict]], tmp_path: Path):
    check("--parts", "holds,breaks")
    state = json.loads((tmp_path / "gpu_check.json").read_text())
    state["machine"]["torch"] = "another"
    (tmp_path / "gpu_check.json").write_text(json.dumps(state))
    assert list(check("--parts", "comes last")[1]) == ["comes last"]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture):
    module = load_script(monkeypatch)
    monkeypatch.setattr(module, "device_absence", lambda device, environment: "none there")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path)])
    assert module.main() == 2
    assert "no GPU here (none there)" in capsys.readouterr().err
