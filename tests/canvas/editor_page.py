"""Blend Curves in the page, used by mouse and keys as a person does, in the classic canvas or in Nodes 2.0."""

from __future__ import annotations

import json
from pathlib import Path

from canvas_page import CanvasPage

RENDERERS = {"classic": False, "nodes 2": True}
NODE = "DualRealBlendCurves"
ADD = """([scale, count]) => {
  const { app, LiteGraph } = window
  app.graph.clear()
  for (let index = 0; index < count; index++) {
    const node = LiteGraph.createNode('DualRealBlendCurves')
    app.graph.add(node)
    node.pos = [120 + 520 * index, 110]
  }
  app.canvas.ds.scale = scale
  app.canvas.ds.offset = [0, 0]
  app.canvas.setDirty(true, true)
  app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
}"""
VALUES = """() => {
  const found = []
  const collect = graph => { for (const node of graph.nodes) {
    if (node.type === 'DualRealBlendCurves') found.push(node.widgets[0].value)
    if (node.subgraph) collect(node.subgraph)
  } }
  collect(window.app.graph)
  return found
}"""
EXPORTED = """async () => Object.values((await window.app.graphToPrompt()).output)
  .filter(node => node.class_type === 'DualRealBlendCurves').map(node => node.inputs)"""


class EditorPage:
    """Editors on one `CanvasPage`; the first one unless another is told."""

    def __init__(self, canvas: CanvasPage) -> None:
        self.canvas, self.page = canvas, canvas.page

    def show(self, renderer: str, scale: float = 1.0, count: int = 1, **settings: object) -> None:
        """Opens the page anew in a renderer, with `count` nodes on an empty canvas at a zoom."""
        for name, value in {"Comfy.VueNodes.Enabled": RENDERERS[renderer], **settings}.items():
            self.page.request.post(f"{self.canvas.url}/api/settings/{name.replace('_', '.')}", data=json.dumps(value))
        self.canvas.open()
        self.page.evaluate(ADD, [scale, count])
        self.settle(count - 1)

    def settle(self, index: int = 0) -> None:
        """Waits until an editor is there and lies still; the page lays nodes out over several frames."""
        self.editor(index).wait_for()
        boxes = [None]
        while len(boxes) < 4 or boxes[-1] != boxes[-3]:
            self.page.wait_for_timeout(150)
            boxes.append(self.point("sigma", "identity", 0, index).bounding_box())

    def editor(self, index: int = 0):
        return self.page.locator(".dualreal-blend-editor:visible").nth(index)

    def point(self, axis: str, side: str, index: int, editor: int = 0):
        return self.editor(editor).locator(f".plot-frame.{axis} .point.{side}").nth(index)

    def button(self, name: str, editor: int = 0):
        return self.editor(editor).locator(f"[data-do={name}]")

    def drag(self, axis: str, side: str, index: int, right: float, down: float, editor: int = 0) -> dict:
        """Drags a point by shares of its plot, in small steps; returns the plot's box on the screen."""
        marker = self.point(axis, side, index, editor).locator("path")
        marker.hover()  # waits until it lies still and nothing lies over it
        frame = self.editor(editor).locator(f".plot-frame.{axis}").bounding_box()
        box = marker.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        right, down = right * frame["width"], down * frame["height"]
        self.page.mouse.down()
        self.page.mouse.move(x + right / 2, y + down / 2, steps=3)
        self.page.mouse.move(x + right, y + down, steps=3)
        self.page.mouse.up()
        return frame

    def values(self) -> list[str]:
        """The widgets' values of all such nodes, those in subgraphs included."""
        return self.page.evaluate(VALUES)

    def exported(self) -> list[dict]:
        """Inputs of all such nodes as ComfyUI queues them."""
        return self.page.evaluate(EXPORTED)

    def page_undo(self) -> None:
        """ComfyUI's own undo, by its keys."""
        self.page.keyboard.press("Control+z")
        self.page.wait_for_timeout(700)
        self.settle()

    def screenshot(self, file: Path, editor: int = 0) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.editor(editor).screenshot(path=file)
