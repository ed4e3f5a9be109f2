"""Single nodes in the page: put on the canvas, looked at, saved, opened again, taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canvas_page import SETTLE_MS, SHOW_ALL, CanvasPage

if TYPE_CHECKING:
    from playwright.sync_api import Locator

ADD = """types => {
  window.app.graph.clear()
  const found = {}
  let [left, top, highest] = [0, 0, 0]
  for (const type of types) {
    const node = window.LiteGraph.createNode(type)
    node.pos = [left, top]
    window.app.graph.add(node)
    highest = Math.max(highest, node.size[1])
    left += node.size[0] + 60
    if (left > 1300) [left, top, highest] = [0, top + highest + 120, 0]
    found[type] = { id: String(node.id), widgets: (node.widgets ?? []).map(widget => widget.name) }
  }
  return found
}"""
SAVE = "() => JSON.stringify(window.app.graph.serialize())"
OPEN = "async text => { await window.app.loadGraphData(JSON.parse(text)) }"
PROMPT = "async () => (await window.app.graphToPrompt()).output"
POINT = """([id, name]) => {
  const node = window.app.graph.getNodeById(Number(id))
  const widget = node.widgets.find(one => one.name === name)
  if (widget.last_y === undefined && widget.y === undefined) return null
  const [x, y] = [node.pos[0] + node.size[0] - 26, node.pos[1] + (widget.last_y ?? widget.y) + 10]
  const { scale, offset } = window.app.canvas.ds
  const box = window.app.canvas.canvas.getBoundingClientRect()
  return [box.left + (x + offset[0]) * scale, box.top + (y + offset[1]) * scale]
}"""
BESIDE = """() => {
  const box = document.querySelector('#graph-canvas').getBoundingClientRect()
  return [box.left + box.width / 2, box.bottom - 150]
}"""
VALUE = "([id, name]) => window.app.graph.getNodeById(Number(id)).widgets.find(one => one.name === name).value"


def add_nodes(canvas: CanvasPage, types: list[str]) -> dict[str, dict]:
    """Nodes of these types on an emptied canvas: type to its id and the names of its widgets."""
    found = canvas.page.evaluate(ADD, types)
    canvas.page.wait_for_timeout(SETTLE_MS)
    canvas.page.evaluate(SHOW_ALL)
    canvas.page.wait_for_timeout(SETTLE_MS)
    return found


def drawn(canvas: CanvasPage, node_id: str) -> str:
    """The words that Nodes 2.0 shows of a node."""
    return _element(canvas, node_id).inner_text()


def enter(canvas: CanvasPage, node_id: str, name: str, value: str) -> tuple[object, object]:
    """Type a number into a field of Nodes 2.0; returns the widget's value before and after."""
    before = canvas.page.evaluate(VALUE, [node_id, name])
    label = canvas.page.get_by_text(name, exact=True)
    field = _element(canvas, node_id).get_by_test_id("node-widget").filter(has=label).locator("input").first
    field.focus()
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.type(value)
    canvas.page.keyboard.press("Enter")
    canvas.page.wait_for_timeout(100)
    return before, canvas.page.evaluate(VALUE, [node_id, name])


def undo(canvas: CanvasPage) -> None:
    """A click beside the nodes, by which a field is left, and Ctrl+Z."""
    canvas.page.wait_for_timeout(SETTLE_MS)
    canvas.page.mouse.click(*canvas.page.evaluate(BESIDE))
    canvas.page.wait_for_timeout(SETTLE_MS)
    canvas.page.keyboard.press("Control+z")
    canvas.page.wait_for_timeout(2 * SETTLE_MS)


def step_up(canvas: CanvasPage, node_id: str, name: str) -> tuple[object, object]:
    """Click the right arrow of a widget in the classic canvas; returns its value before and after."""
    before = canvas.page.evaluate(VALUE, [node_id, name])
    canvas.page.mouse.click(*canvas.page.evaluate(POINT, [node_id, name]))
    canvas.page.wait_for_timeout(100)
    return before, canvas.page.evaluate(VALUE, [node_id, name])


def save(canvas: CanvasPage) -> str:
    """The graph as the text of a file."""
    return canvas.page.evaluate(SAVE)


def reopen(canvas: CanvasPage, text: str) -> None:
    canvas.page.evaluate(OPEN, text)
    canvas.page.wait_for_timeout(SETTLE_MS)


def prompt_of(canvas: CanvasPage) -> dict[str, dict]:
    """What the page would send to /prompt, which is what it exports as API format."""
    return canvas.page.evaluate(PROMPT)


def _element(canvas: CanvasPage, node_id: str) -> Locator:
    return canvas.page.locator(f'[data-node-id="{node_id}"]')
