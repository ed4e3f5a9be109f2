"""Draws docs/blend_editor.png and docs/blend_editor_nodes2.png: the blend editor after a run, in both renderers of ComfyUI's page.

    python scripts/make_editor_screenshots.py http://127.0.0.1:8188     about two minutes on 2 CPU cores: a pair is trained for a few steps

It needs a running ComfyUI with this pack, Playwright and Chromium (see tests/canvas).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "canvas"))
from canvas_page import CanvasPage, opened_page  # noqa: E402
from editor_page import NODE, EditorPage  # noqa: E402

PICTURES = {"classic": "blend_editor", "nodes 2": "blend_editor_nodes2"}
SHORT = {"DualRealTrainingSettings": {"steps": 4, "preview_every": 4}, "KSampler": {"steps": 12}}
CURVES = """identity sigma 1:0.4 0.818:0.4 0.667:1.4 0:1.4
identity depth 0:1 0.5:1.1 1:0.8
motion sigma 1:1.2 0.818:1.2 0.667:0.6 0:0.6
motion depth 0:0.9 1:1.2"""
RUN_TIMEOUT = 600.0
TO_EDITOR = """() => {
  const { canvas } = window.app
  const node = canvas.graph.nodes.find(one => one.type === 'DualRealBlendCurves')
  node.setSize([520, 640])
  canvas.ds.scale = 1.25
  canvas.ds.offset = [120 - node.pos[0], 150 - node.pos[1]]
  canvas.setDirty(true, true)
}"""


def main(url: str) -> None:
    with opened_page(url) as canvas:
        for seed, (renderer, name) in enumerate(PICTURES.items()):
            draw(canvas, renderer, ROOT / "docs" / f"{name}.png", graph(seed))


def graph(seed: int) -> dict[str, dict]:
    """What the quick start samples with its pair, short, by curves; a seed of its own, as nothing is sampled that ComfyUI has cached."""
    whole = json.loads((ROOT / "workflows" / "api" / "1_quick_start.json").read_text(encoding="utf-8"))
    both = {"class_type": "DualRealApplyStageBlender", "identity_strength": 1.0, "motion_strength": 1.0}
    apply = next(key for key, node in whole.items() if both.items() <= {"class_type": node["class_type"], **node["inputs"]}.items())
    sampler = next(key for key, node in whole.items() if node["inputs"].get("model") == [apply, 0] and node["class_type"] == "KSampler")
    kept: dict[str, dict] = {}
    waiting = [sampler]
    while waiting:
        key = waiting.pop()
        if key not in kept:
            kept[key] = {**whole[key], "inputs": whole[key]["inputs"] | SHORT.get(whole[key]["class_type"], {})}
            waiting += [value[0] for value in kept[key]["inputs"].values() if isinstance(value, list)]
    kept[sampler]["inputs"]["seed"] = seed
    kept[apply]["inputs"]["blend"] = ["curves", 0]
    return kept | {
        "curves": {"class_type": NODE, "inputs": {"curves": CURVES}},
        "map": {"class_type": "DualRealBlendMap", "inputs": {"model": [apply, 0], "latent": [sampler, 0]}},
    }


def draw(canvas: CanvasPage, renderer: str, picture: Path, prompt: dict[str, dict]) -> None:
    editors = EditorPage(canvas)
    editors.show(renderer)
    canvas.page.evaluate("graph => window.app.loadApiJson(graph, 'editor.json')", prompt)
    ended = canvas.run(RUN_TIMEOUT)
    if ended["type"] != "execution_success":
        raise SystemExit(f"The run for the screenshot failed: {ended['detail']}")
    canvas.page.evaluate(TO_EDITOR)
    editors.settle()
    editors.point("sigma", "identity", 2).focus()
    canvas.page.wait_for_timeout(500)
    box = editors.editor().bounding_box()
    around = {"x": box["x"] - 24, "y": box["y"] - 84, "width": box["width"] + 48, "height": box["height"] + 140}
    canvas.page.screenshot(path=picture, clip=around)


if __name__ == "__main__":
    main(sys.argv[1])
