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
PUT_PAIR = """([files, pair, isJoined]) => {
  const put = (graph, type, source, shift) => {
    const node = window.LiteGraph.createNode(type)
    node.pos = [source.pos[0] + shift, source.pos[1] - 120]
    graph.add(node)
    return node
  }
  const fileOf = node => files.indexOf((node.widgets ?? []).map(widget => widget.value).find(value => files.includes(value)))
  const names = []
  const visit = graph => {
    const loaders = graph.nodes.filter(node => !node.subgraph && node.mode === 0 && fileOf(node) >= 0)
      .map(node => [node, node.outputs.findIndex(output => output.type === 'MODEL')]).filter(([, slot]) => slot >= 0)
    loaders.sort(([one], [other]) => fileOf(one) - fileOf(other))
    let loaded, both
    for (const [index, [node, slot]] of loaders.entries()) {
      const targets = [...(node.outputs[slot].links ?? [])].map(id => graph.links.get(id))
        .map(link => [graph.getNodeById(link.target_id), link.target_slot])
      if (!loaded) {
        loaded = put(graph, 'DualRealLoadPair', node, 0)
        loaded.widgets.find(widget => widget.name === 'name').value = pair
      }
      const applied = (isJoined && both) || put(graph, isJoined ? 'DualRealApplyTwoExperts' : 'DualRealApplyStageBlender', node, 320)
      both = applied
      for (const [target, input] of targets) applied.connect(isJoined ? index : 0, target, input)
      node.connect(slot, applied, applied.findInputSlot(isJoined ? ['model_high', 'model_low'][index] : 'model'))
      loaded.connect(0, applied, applied.findInputSlot('pair'))
      names.push(node.title)
    }
    for (const node of graph.nodes) if (node.subgraph && node.mode === 0) visit(node.subgraph)
  }
  visit(window.app.graph)
  return names
}"""
HAS_NODE = "type => Boolean(window.LiteGraph.registered_node_types[type])"


def open_official(canvas: CanvasPage, name: str) -> bool:
    """Opens a template that ComfyUI brings; False where this ComfyUI has none of that name."""
    return canvas.page.evaluate(OPEN, name)


def prompt_of(canvas: CanvasPage) -> dict[str, dict]:
    """What the page would send to /prompt."""
    return canvas.page.evaluate(PROMPT)


def put_pair(canvas: CanvasPage, files: list[str], pair: str, is_joined: bool = False) -> list[str]:
    """Load Pair and an Apply StageBlender behind every loader of these files, in subgraphs too; returns the loaders' titles.

    is_joined: the files are the two experts of a model, the one that begins first, and one node is put behind both.
    """
    is_joined = is_joined and canvas.page.evaluate(HAS_NODE, "DualRealApplyTwoExperts")
    return canvas.page.evaluate(PUT_PAIR, [files, pair, is_joined])
