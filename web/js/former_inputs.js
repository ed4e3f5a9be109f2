// Graphs that were saved when inputs had other names: values are carried over by name, and the user is told.
import { app } from "../../../scripts/app.js"

const WIDGET_TYPES = ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"]
const OPTIONS = "options"

const table = await (await fetch(new URL("former_inputs.json", import.meta.url))).json()
const definitions = {}
let moves = []

// [name, default] of each widget of a node, in their order
function widgetsOf(type) {
  const inputs = ["required", "optional"].flatMap((kind) => Object.entries(definitions[type].input[kind] ?? {}))
  return inputs
    .filter(([, [kind, options]]) => (Array.isArray(kind) || WIDGET_TYPES.includes(kind)) && !options?.forceInput)
    .map(([name, [kind, options]]) => [name, options?.default ?? (Array.isArray(kind) ? kind[0] : options?.options?.[0])])
}

// For each input that is called otherwise now, or gone.
function story(name, change) {
  if (change === null) return [`${name} is gone`]
  if (change.name === name) return []
  const when = change.true_at === undefined ? "" : `, which is true where it was ${change.true_at}`
  return [`${name} is now ${change.name}${when}`]
}

// Links name an input by its place, which changes with the list.
function moveLinks(links, node, before) {
  for (const link of [...(links ?? [])]) {
    const [target, slot] = Array.isArray(link) ? [link[3], link[4]] : [link.target_id, link.target_slot]
    if (target !== node.id) continue
    const place = node.inputs.findIndex((input) => input.link === before[slot]?.link)
    if (place < 0) links.splice(links.indexOf(link), 1)
    else if (Array.isArray(link)) link[4] = place
    else link.target_slot = place
  }
}

function translate(node, links) {
  const former = table[node.type]
  const names = (node.inputs ?? []).filter((input) => input.widget).map((input) => input.name)
  if (!former || !definitions[node.type] || !names.some((name) => name in former)) return null
  const saved = Array.isArray(node.widgets_values)
    ? Object.fromEntries(names.map((name, index) => [name, node.widgets_values[index]]))
    : node.widgets_values ?? {}
  const [own, moved, changes] = [{}, {}, []]
  for (const name of names) {
    const change = former[name]
    if (change === undefined) {
      own[name] = saved[name]
      continue
    }
    changes.push(...story(name, change))
    if (change === null) continue
    const value = change.true_at === undefined ? saved[name] : saved[name] === change.true_at
    if (change.node) (moved[change.node] ??= {})[change.name] = value
    else own[change.name] = value
  }
  const before = node.inputs
  node.inputs = before.flatMap((input) => {
    const change = former[input.name]
    if (change === undefined) return [input]
    return change === null || change.node ? [] : [{ ...input, name: change.name, widget: { name: change.name } }]
  })
  moveLinks(links, node, before)
  node.widgets_values = widgetsOf(node.type).map(([name, usual]) => own[name] ?? usual)
  for (const [type, values] of Object.entries(moved)) {
    const usual = Object.fromEntries(widgetsOf(type))
    const differs = ([name, value]) => value !== undefined && value !== usual[name]
    if (Object.entries(values).some(differs)) moves.push({ id: node.id, type, values })
  }
  const places = Object.keys(moved).map((type) => `what is not in this node any more is in ${definitions[type].display_name}`)
  return `${definitions[node.type].display_name}: ${[...changes, ...places].join(", ")}.`
}

function addOptions({ id, type, values }) {
  const graphs = [app.graph, ...(app.graph.subgraphs?.values() ?? [])]
  const node = graphs.map((graph) => graph.getNodeById(id)).find((one) => one && table[one.type])
  const options = LiteGraph.createNode(type)
  node.graph.add(options)
  options.pos = [node.pos[0], node.pos[1] - options.size[1] - 120]
  for (const widget of options.widgets) if (values[widget.name] !== undefined) widget.value = values[widget.name]
  options.connect(0, node, node.findInputSlot(OPTIONS))
}

app.registerExtension({
  name: "DualReal.FormerInputs",
  beforeRegisterNodeDef(nodeType, definition) {
    if (definition.name.startsWith("DualReal")) definitions[definition.name] = definition
  },
  beforeConfigureGraph(graph) {
    moves = []
    const sentences = [graph, ...(graph.definitions?.subgraphs ?? [])]
      .flatMap(({ nodes, links }) => (nodes ?? []).map((node) => translate(node, links)))
      .filter(Boolean)
    if (sentences.length) {
      const summary = "Inputs of this graph have new names"
      app.extensionManager.toast.add({ severity: "info", summary, detail: sentences.join(" "), life: 20000 })
    }
  },
  afterConfigureGraph() {
    moves.splice(0).forEach(addOptions)
  },
})
