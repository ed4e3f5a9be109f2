// Puts the blend editor into the node Blend Curves, in the place of its text field; the widget's value stays that text.
import { api } from "../../../../scripts/api.js"
import { app } from "../../../../scripts/app.js"
import { BlendEditor } from "./editor.js"
import { make } from "./dom.js"
import { wordsOf } from "./words.js"

const NODE = "DualRealBlendCurves"
const INPUT = "curves"
const WIDGET = "DUALREAL_CURVES"
const EVENT = "dualreal.blend_used"
const MIN_SIZE = [440, 560]
const MAX_FORMER = 50
const STILL_SHOWN = 3000 // ms in which a page may go on showing an editor that was taken away
const STILL_FOCUSED = 1500 // ms for which an editor that was taken away gives its focus to the next

const editors = new Map() // by node
const former = new Map() // by the node's place in its graph: what an undo of the page takes away and makes anew

let presets = null

function placeOf(node) {
  return `${node.graph?.rootGraph?.id}:${node.id}` // ComfyUI's own name of a widget's place, too
}

function hostOf(node, widgetOf) {
  return {
    begin: () => app.canvas.emitBeforeChange?.(), // one step of the page's undo, whatever happens in between
    end: () => app.canvas.emitAfterChange?.(),
    changed(text) {
      widgetOf().callback?.(text)
      node.graph?.setDirtyCanvas(true, true)
    },
  }
}

function addEditor(node, name, [, options]) {
  let widget
  const words = wordsOf(app.ui.settings.getSettingValue("Comfy.Locale"))
  const editor = new BlendEditor(options.default ?? "", presets, words, hostOf(node, () => widget))
  forwardToCanvas(editor.element)
  widget = node.addDOMWidget(name, WIDGET, editor.element, {
    getValue: () => editor.text,
    setValue: (text) => text !== editor.text && editor.take(String(text ?? "")),
    getMinHeight: () => MIN_SIZE[1],
    hideOnZoom: false,
  })
  editors.set(node, editor)
  follow(node, editor)
  return { widget, minWidth: MIN_SIZE[0], minHeight: MIN_SIZE[1] }
}

function follow(node, editor) {
  const chain = (name, act) => {
    const before = node[name]
    node[name] = function (...given) {
      const result = before?.apply(this, given)
      act(...given)
      return result
    }
  }
  let place = null
  chain("onConfigure", () => {
    const known = former.get(placeOf(node))
    if (known) {
      editor.inherit(known.editor)
      takePlace(editor, known.editor, Date.now() + STILL_SHOWN)
      if (known.focus && Date.now() - known.at < STILL_FOCUSED) restoreFocus(editor, known.focus)
    }
    showLink(node, editor)
  })
  chain("onAdded", () => (place = placeOf(node)))
  chain("onConnectionsChange", () => showLink(node, editor))
  chain("onRemoved", () => {
    const focus = editor.element.contains(document.activeElement) ? editor.selected : null
    editor.endGesture()
    former.delete(place)
    former.set(place, { editor, focus, at: Date.now() })
    if (former.size > MAX_FORMER) former.delete(former.keys().next().value)
    editors.delete(node)
  })
}

// Nodes 2.0 keeps the element of a node that an undo made anew (frontend 1.58): then the new one goes where the old one is
function takePlace(editor, old, until) {
  if (old.element.isConnected && !editor.element.isConnected) old.element.replaceWith(editor.element)
  if (Date.now() < until) requestAnimationFrame(() => takePlace(editor, old, until))
}

function restoreFocus(editor, { side, axis, index }, attempts = 20) {
  if (editor.element.isConnected && editor.element.clientHeight) editor.plots[axis].focus(side, index)
  else if (attempts) requestAnimationFrame(() => restoreFocus(editor, { side, axis, index }, attempts - 1))
}

function showLink(node, editor) {
  const isLinked = node.inputs?.some((input) => input.widget?.name === INPUT && input.link != null) ?? false
  editor.element.toggleAttribute("inert", isLinked)
  if (isLinked) editor.status.textContent = editor.words("linked")
  else if (editor.status.textContent === editor.words("linked")) editor.status.textContent = ""
}

// In the classic canvas the widget lies above it; the wheel and the middle button are meant for the canvas
function forwardToCanvas(element) {
  element.addEventListener("wheel", (event) => {
    if (LiteGraph.vueNodesMode || event.target.tagName === "TEXTAREA") return
    event.preventDefault()
    app.canvas.processMouseWheel(event)
  })
  element.addEventListener("pointerdown", (event) => {
    if (event.button === 1 && !LiteGraph.vueNodesMode) app.canvas.processMouseDown(event)
  })
}

// A node by ComfyUI's id of it in a run: those of the subgraphs around it stand before its own, '12:5'
function nodeOf(runId) {
  let graph = app.rootGraph ?? app.graph
  let node = null
  for (const id of String(runId).split(":")) {
    node = graph?.getNodeById(id) ?? graph?.getNodeById(Number(id))
    graph = node?.subgraph
  }
  return node
}

app.registerExtension({
  name: "DualReal.BlendEditor",
  async init() {
    const style = make("link", { rel: "stylesheet", href: new URL("style.css", import.meta.url).href })
    const isRead = new Promise((resolve) => (style.onload = style.onerror = resolve))
    document.head.append(style)
    await isRead
  },
  async beforeRegisterNodeDef(nodeType, definition) {
    if (definition.name !== NODE) return
    const answer = await api.fetchApi("/dualreal/presets")
    if (!answer.ok) return // without the presets the text field stays
    presets = await answer.json()
    definition.input.required[INPUT][1].widgetType = WIDGET
  },
  getCustomWidgets: () => ({ [WIDGET]: addEditor }),
  setup() {
    api.addEventListener(EVENT, ({ detail }) => editors.get(nodeOf(detail.node))?.noteUse(detail))
  },
})
