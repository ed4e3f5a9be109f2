"""Takes the pictures of graphs in README and guide from ComfyUI's page, as a person sees it after a run.

    python scripts/make_screenshots.py http://127.0.0.1:8188     a running ComfyUI with this pack; about 4 minutes on 2 CPU cores

A quick start that was trained before shows no samples: move its run away from output/dualreal/runs first.
Needs Playwright and Chromium, as tests/canvas does.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "canvas"))
from canvas_page import NODES_2, SETTLE_MS, SHOW_ALL, CanvasPage, opened_page  # noqa: E402

PICTURES = {"graph": "1_quick_start"}
"""Name of a picture in docs/, and the template that it shows."""
WINDOW = {"width": 2600, "height": 1700}
MARGIN = 16
RUN_TIMEOUT = 1800.0
PLAIN = {"Comfy.Minimap.Visible": "false", "Comfy.Graph.CanvasInfo": "false"}
BOX = """() => {
  const { ds, canvas } = window.app.canvas
  const { graph } = window.app
  const boxes = [
    ...graph.nodes.map(node => [node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]),
    ...graph.groups.map(({ pos, size }) => [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]]),
  ]
  const edge = (index, pick) => pick(...boxes.map(box => box[index]))
  const [left, top, right, bottom] = [edge(0, Math.min), edge(1, Math.min), edge(2, Math.max), edge(3, Math.max)]
  const { left: x, top: y } = canvas.getBoundingClientRect()
  const place = (value, axis) => (value + ds.offset[axis]) * ds.scale + [x, y][axis]
  return { x: place(left, 0), y: place(top, 1), width: (right - left) * ds.scale, height: (bottom - top) * ds.scale }
}"""


def main(url: str) -> None:
    with opened_page(url, NODES_2) as canvas:
        for name, value in PLAIN.items():
            canvas.page.request.post(f"{url}/api/settings/{name}", data=value)
        # Nodes whose output is kept do not work again, and show nothing of their work.
        canvas.page.request.post(f"{url}/api/free", data={"unload_models": True, "free_memory": True})
        canvas.page.set_viewport_size(WINDOW)
        for picture, template in PICTURES.items():
            take(canvas, ROOT / "docs" / f"{picture}.png", ROOT / "workflows" / f"{template}.json")


def take(canvas: CanvasPage, file: Path, workflow: Path) -> None:
    canvas.open()
    canvas.drop(workflow.name, workflow.read_bytes())
    ended = canvas.run(RUN_TIMEOUT)
    if ended["type"] != "execution_success":
        sys.exit(f"{workflow.name} did not run: {ended}")
    canvas.page.evaluate(SHOW_ALL)
    canvas.page.wait_for_timeout(3 * SETTLE_MS)
    box = canvas.page.evaluate(BOX)
    clip = {"x": box["x"] - MARGIN, "y": box["y"] - MARGIN, "width": box["width"] + 2 * MARGIN, "height": box["height"] + 2 * MARGIN}
    canvas.page.screenshot(path=file, clip=clip)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1].rstrip("/"))
