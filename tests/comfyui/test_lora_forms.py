"""LoRA files in the forms of `lora_forms`, on ComfyUI's own patchers: each does by ours what its method's definition says.

`scripts/make_lora_forms_table.py` writes docs/lora-files.md out of the same.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from comfy_host import ComfyHost
from lora_forms import FORMS

HERE = Path(__file__).parent
LARGEST_ERROR = 1e-5
"""Of all changes of weights together, in float32."""
LARGEST_DIFFERENCE = 1e-4
"""Of what is sampled, against a model whose weights were changed."""
SAMPLED = (
    "Wan 2.2, both experts in one file, on the low one",
    "CogVideoX, diffusers names",
    "LTX-Video, for ComfyUI",
    "LTX-2, sound outside of blocks",
    "HunyuanVideo, kohya names, fc1 and fc2",
    "HunyuanVideo 1.5, q, k, v apart",
    "Kandinsky 5, kohya names",
    "MiniMax-H3, diffusers names (value before gate)",
    "VACE blocks on VACE",
    "image layers on Wan 2.1 I2V",
    "low rank with differences of norms, biases, modulation, patches",
)
"""One of every model; with these it is also sampled, and they are tried at half strength."""
BRIEF = (
    *SAMPLED,
    "Wan, lora_unet__ without cross attention, bf16",
    "adapter_config.json: patterns and rsLoRA",
    "DoRA, lora_magnitude_vector on native names",
    "DoRA by columns on q, k, v apart",
    "LoKr, full, alpha infinite (fp16)",
    "each kind on q, k, v apart",
    "each kind, inside and outside of blocks",
    "image layers of Wan 2.1 I2V on text to video",
    "NaN",
    "Flux on Wan",
)
"""Forms that differ most."""
REST = tuple(name for name in FORMS if name not in BRIEF)
Came = dict[str, object]


@pytest.fixture(scope="module")
def run(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], dict[str, Came]]:
    """What comes of some forms, all in one process."""

    @cache
    def report(names: tuple[str, ...]) -> dict[str, Came]:
        file = tmp_path_factory.mktemp("forms") / "report.json"
        command = [comfy_host.python, HERE / "run_lora_form_checks.py", comfy_host.path, file, "--only", *names, "--sampled", *SAMPLED]
        done = subprocess.run(command, capture_output=True, text=True)
        assert file.exists(), done.stderr[-4000:]
        return json.loads(file.read_text(encoding="utf-8"))

    return report


@pytest.mark.parametrize("name", BRIEF)
def test_a_file_does_what_its_method_says(run: Callable[[tuple[str, ...]], dict[str, Came]], name: str) -> None:
    check(run(BRIEF)[name], name)


@pytest.mark.thorough
@pytest.mark.parametrize("name", REST)
def test_every_other_file_does_so_too(run: Callable[[tuple[str, ...]], dict[str, Came]], name: str) -> None:
    check(run(REST)[name], name)


def check(came: Came, name: str) -> None:
    """What came of a form is what it says of itself."""
    assert "failed" not in came, came["failed"]
    if FORMS[name].refused:
        assert came["ours"] is None, f"it acts ({came['ours']:g}), and is to be refused"
        assert re.search(FORMS[name].refused, came["said"]), came["said"]
        return
    assert came["ours"] is not None, f"refused: {came['said']}"
    assert came["ours"] < LARGEST_ERROR, came["off"]
    for words in came["left out"]:
        assert re.search(words, came["said"]), f"{words!r} is not in {came['said']!r}"
    assert came.get("at half", 0.0) < LARGEST_ERROR
    assert came.get("heard", 0.0) < LARGEST_ERROR
    assert came.get("float8", 0.0) < LARGEST_ERROR
    assert came.get("sampled", 0.0) < LARGEST_DIFFERENCE
