"""Writes docs/lora-files.md: what comes of LoRA files in the forms of `tests/lora_forms`, by ComfyUI's own loader and by ours.

    COMFYUI_PATH=~/ComfyUI COMFYUI_PYTHON=PYTHON_OF_COMFYUI python scripts/make_lora_forms_table.py

COMFYUI_PYTHON is this Python where it is not given. Takes about a minute on a CPU.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "comfyui")]
FORMS = importlib.import_module("lora_forms").FORMS
VARIANTS = importlib.import_module("variants").VARIANTS
RUNNER = ROOT / "tests" / "comfyui" / "run_lora_form_checks.py"
PAGE = ROOT / "docs" / "lora-files.md"
EXACT = 1e-5
"""Differences below are those of rounding."""
USUAL = re.compile(r"^\S+: acts by stage and depth: [^;.]*(?:\.\d+[^;.]*)?(?:; |\. |\.$)|\.$")
"""How notes begin and end."""
Came = dict[str, object]


def main() -> None:
    """Tries every form and writes the page."""
    comfyui = Path(os.environ.get("COMFYUI_PATH", "~/ComfyUI")).expanduser()
    if not (comfyui / "main.py").is_file():
        sys.exit(f"There is no ComfyUI at {comfyui}: set COMFYUI_PATH to a checkout.")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        subprocess.run(
            [os.environ.get("COMFYUI_PYTHON", sys.executable), RUNNER, comfyui, file, "--stock"], check=True, stdout=subprocess.DEVNULL
        )
        report: dict[str, Came] = json.loads(file.read_text(encoding="utf-8"))
    PAGE.write_text(page(report, version(comfyui)), encoding="utf-8")


def version(comfyui: Path) -> str:
    """Of the ComfyUI that was asked."""
    found = re.search(r'__version__ = "([^"]+)"', (comfyui / "comfyui_version.py").read_text(encoding="utf-8"))
    return found[1] if found else "of an unknown version"


def page(report: dict[str, Came], comfyui: str) -> str:
    """The page, in Markdown."""
    acting = {name: came for name, came in report.items() if not FORMS[name].refused}
    refused = {name: came for name, came in report.items() if FORMS[name].refused}
    rows = [["Form", "Trainer or tool", "Model", "Stock loader", "Here", "What acts at a constant strength, or not at all"]]
    rows += [[name, FORMS[name].trainer, title(name), stock(came), ours(came), left_out(came)] for name, came in acting.items()]
    sentences = [
        ["File", "Stock loader", "Here"],
        *([name, applied(came), str(came.get("said") or "acts")] for name, came in refused.items()),
    ]
    right = {who: sum(is_right(came[who]) for came in acting.values()) for who in ("stock", "ours")}
    return TEMPLATE.format(
        comfyui=comfyui, forms=len(report), acting=len(acting), refused=len(refused), right_stock=right["stock"], right_ours=right["ours"],
        nothing=sum(came["stock said"] == "reads nothing" for came in acting.values()),
        fails=sum(str(came["stock said"]).startswith("fails") for came in acting.values()),
        silent=sum(came["stock"] is not None and not is_right(came["stock"]) for came in acting.values()),
        table=table(rows), sentences=table(sentences),
    )  # fmt: skip


def title(name: str) -> str:
    """Of the model that a form is of."""
    return VARIANTS[FORMS[name].base].title.partition(",")[0]


def is_right(error: float | None) -> bool:
    """Whether a loader does what the definition says."""
    return error is not None and error < EXACT


def stock(came: Came) -> str:
    """What comes of a file in the stock loader."""
    return str(came["stock said"]) if came["stock"] is None else difference(came["stock"])


def applied(came: Came) -> str:
    """The same of a file that is to be refused."""
    return str(came["stock said"]) if came["stock"] is None else "applies what it knows"


def ours(came: Came) -> str:
    """What comes of a file here."""
    return f"refused: {came['said']}" if came["ours"] is None else difference(came["ours"])


def difference(error: float) -> str:
    """An error as people read it."""
    return "equal" if error < EXACT else f"off by {error:.2g}"


def left_out(came: Came) -> str:
    """The note on a file that acts, without its name."""
    return "" if came["ours"] is None else USUAL.sub("", str(came["said"]))


def table(rows: list[list[str]]) -> str:
    """In Markdown."""
    cells = [[cell.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("<", "&lt;") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


TEMPLATE = """# LoRA files

What *Load Identity LoRA*, *Load Motion LoRA* and *Blend Two LoRAs* make of LoRA files, and what ComfyUI's own Load LoRA makes of them
(ComfyUI {comfyui}).

```
COMFYUI_PATH=~/ComfyUI COMFYUI_PYTHON=PYTHON_OF_COMFYUI python scripts/make_lora_forms_table.py
```

writes this page. It makes {forms} files for tiny random models of the same classes as the real ones, each named and scaled as the trainer
writes it (`tests/lora_forms`), and works out what each does to every weight from the definition of its method in float64, apart from any
reader. Both loaders apply the file at strength 1, here at an even blend, and what they do to each weight is read off the model while it
runs. *Equal*: the same up to rounding (below 1e-5 of the whole change); *off by 0.5*: half as large a difference as the file's own change.

Of {acting} files that are to act, the stock loader applies {right_stock} as they are meant, reads nothing of {nothing}, fails on {fails},
and applies {silent} otherwise than meant. Here {right_ours} act as meant. The definitions are checked against what peft merges of its own
adapters and what diffusers reads of its names (`tests/core/test_lora_forms.py`).

Where the two disagree, the file's meaning decides: alpha, rsLoRA and patterns count wherever the trainer keeps them; DoRA is the
magnitude over the norm of the sum of weight and update, as in the paper, peft and LyCORIS (the stock loader takes the weight's own norm
for magnitudes of rows); OFT has its rescale and its constraint.

Layers in blocks act by stage and depth, in the forward pass, also on quantized models. What lies outside (heads, embeddings, norms,
modulation) is patched into the weights at the strength of its side, as the stock loader does it: in a model whose weights all have 8 bits
it is rounded to these. What makes sound follows `audio_strength`, which is 0 unless it is raised.

{table}

## Refused

{refused} files that are of another model, damaged, or of a kind that cannot be read are to be refused with a sentence.

{sentences}
"""

if __name__ == "__main__":
    main()
