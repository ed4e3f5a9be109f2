"""Official templates in the page: opened as by a click on them, nodes put behind their model loaders as by hand, and read back."""

from __future__ import annotations

from canvas_page import CanvasPage

OPEN = """async name => {
  const answer = await fetch(`/templates/${name}.json`)
  if (!answer.ok) return false
  await window.app.loadGraphData(await answer.json())
  return true
}"""
PROMPT = "async () => (await window.app.graphToPrompt()).output"
PUT_PAIR = """([files, pair]) => {
  const put = (graph, type, source, shift) => {
    const node = window.LiteGraph.createNode(type)
    node.pos = [source.pos[0] + shift, source.pos[1] - 120]
    graph.add(node)
    return node
  }
  const names = []
  const visit = graph => {
    let loaded = null
    for (const node of [...graph.nodes]) {
      if (node.subgraph) { if (node.mode === 0) visit(node.subgraph); continue }
      const slot = (node.outputs ?? []).findIndex(output => output.type === 'MODEL')
      if (slot < 0 || node.mode !== 0 || !(node.widgets ?? []).some(widget => files.includes(widget.value))) continue
      const targets = [...(node.outputs[slot].links ?? [])].map(id => graph.links.get ? graph.links.get(id) : graph.links[id])
        .map(link => [graph.getNodeById(link.target_id), link.target_slot])
      if (!loaded) {
        loaded = put(graph, 'DualRealLoadPair', node, 0)
        loaded.widgets.find(widget => widget.name === 'name').value = pair
      }
      const applied = put(graph, 'DualRealApplyStageBlender', node, 320)
      for (const [target, input] of targets) applied.connect(0, target, input)
      node.connect(slot, applied, applied.findInputSlot('model'))
      loaded.connect(0, applied, applied.findInputSlot('pair'))
      names.push(node.title)
    }
  }
  visit(window.app.graph)
  return names
}"""


def open_official(canvas: CanvasPage, name: str) -> bool:
    """Opens a template that ComfyUI brings; False where this ComfyUI has none of that name."""
    return canvas.page.evaluate(OPEN, name)


def prompt_of(canvas: CanvasPage) -> dict[str, dict]:
    """What the page would send to /prompt."""
    return canvas.page.evaluate(PROMPT)


def put_pair(canvas: CanvasPage, files: list[str], pair: str) -> list[str]:
    """Load Pair and an Apply StageBlender behind every loader of these files, in subgraphs too; returns the loaders' titles."""
    return canvas.page.evaluate(PUT_PAIR, [files, pair])
