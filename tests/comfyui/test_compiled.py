"""Pairs in compiled code, and layers that are trained through: `patcher_checks` that need no GPU, without a server."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from patcher_cases import ARCHITECTURES, title

HERE = Path(__file__).parent
COMPILED, ONE_GRAPH, FROZEN = "compiled_code_has_the_pair_in_it", "one_graph_holds_model_and_pair", "weights_made_for_a_call_are_not_kept"
CHECKS = [
    (COMPILED, ("wan", "compiled", "whole")),
    (ONE_GRAPH, ("wan", "lora")),
    *((FROZEN, (name, "cast to float8")) for name in ARCHITECTURES),
]
MORE = [
    *((COMPILED, (name, *case)) for name in ARCHITECTURES for case in product(("compiled", "applied"), ("whole", "blocks"))),
    *((ONE_GRAPH, (name, kind)) for name in ARCHITECTURES for kind in ("lora", "bottleneck")),
]


@pytest.mark.parametrize("checks", [CHECKS, pytest.param(MORE, marks=pytest.mark.thorough)], ids=["some", "more"])
def test_on_the_cpu(comfy_host: ComfyHost, tmp_path: Path, checks: list[tuple[str, tuple[str, ...]]]) -> None:
    """In one process, as starting it takes longer than most of them."""
    report, titles = tmp_path / "report.json", [title(*check) for check in checks]
    command = [comfy_host.python, HERE / "run_patcher_checks.py", comfy_host.path, report, "--device", "cpu", "--only", *titles]
    done = subprocess.run(command, capture_output=True, text=True)
    assert report.exists(), done.stderr[-4000:]
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found == {name: ["passed", ""] for name in titles}
