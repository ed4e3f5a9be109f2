"""Writes workflows/ (canvas format), workflows/api/ (API format) and subgraphs/ from the graphs described beside this file.

    python scripts/make_workflows.py http://127.0.0.1:8188     a running ComfyUI with this pack says what its nodes look like

Run it after a node's inputs changed; the tests compare what it wrote. `scripts/make_thumbnails.py` draws the pictures.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from canvas_format import Sheet
from large_models import ltx23, minimax_h3, wan22_4_steps
from toy_templates import batch, quick_start, train_and_blend
from wan_templates import apply_a_pair, blend_two_loras, train_on_wan

ROOT = Path(__file__).resolve().parents[1]

TEMPLATES = {
    "1_quick_start": quick_start,
    "2_train_on_wan": train_on_wan,
    "3_apply_a_pair": apply_a_pair,
    "4_blend_two_loras": blend_two_loras,
    "5_batch": batch,
    "6_wan22_4_steps": wan22_4_steps,
    "7_ltx23": ltx23,
    "8_minimax_h3": minimax_h3,
}


def main(server: str) -> None:
    with urllib.request.urlopen(f"{server.rstrip('/')}/object_info") as answer:
        object_info = json.load(answer)
    for name, describe in TEMPLATES.items():
        sheet = Sheet(name, object_info)
        describe(sheet)
        _write(ROOT / "workflows" / f"{name}.json", sheet.canvas())
        _write(ROOT / "workflows" / "api" / f"{name}.json", sheet.api())
    _write(ROOT / "subgraphs" / "DualReal Train and Blend.json", train_and_blend(object_info))


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
