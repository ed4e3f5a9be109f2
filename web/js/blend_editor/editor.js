// The blend editor: an element that shows the text of blend curves and changes it. It knows nothing of ComfyUI.
import { CurvesError, MAX_WEIGHT, SIDES, between, evenCurves, formatCurves, movedPoint, parseCurves, shareBetween, short } from "./curves.js"
import { make, set } from "./dom.js"
import { History } from "./history.js"
import { BlendMap } from "./map.js"
import { CurvePlot } from "./plot.js"
import { copyText, pasteText } from "./text_exchange.js"
import { joinedUse } from "./used.js"

export class BlendEditor {
  // presets: as the server gives them; host: { begin(), changed(text), end() } is told of gestures and of every new text in them
  constructor(text, presets, words, host) {
    Object.assign(this, { text, presets, words, host, active: SIDES[0], selected: null, used: null, usedFor: null, gesture: null, draft: null })
    this.history = new History(text)
    this.curves = evenCurves()
    this.plots = { sigma: new CurvePlot("sigma", this), depth: new CurvePlot("depth", this) }
    this.maps = SIDES.map((side) => new BlendMap(side, this))
    this.element = this.build()
    this.take(text)
  }

  build() {
    const { words } = this
    const button = (name, act) => make("button", { type: "button", "data-do": name, title: words(`${name}_help`), onclick: act }, words(name))
    const sign = (name, letter) =>
      make("button", { type: "button", "data-do": name, title: words(name), "aria-label": words(name), onclick: () => this.go(name) }, letter)
    const number = (name, max, step) =>
      make("input", { type: "number", "data-field": name, min: 0, max, step, "aria-label": words(name), onchange: () => this.enter() })
    this.choice = make("select", { "data-do": "preset", "aria-label": words("preset"), onchange: () => this.choose(this.choice.value) })
    this.dial = make("input", {
      type: "range", "data-do": "early", "aria-label": words("early"), title: words("early_help"), step: 0.05,
      oninput: () => this.turn(), onchange: () => this.endGesture(),
    })
    this.dialValue = make("output", {})
    this.undoButton = sign("undo", "↶")
    this.redoButton = sign("redo", "↷")
    this.sides = SIDES.map((side) =>
      make("button", { type: "button", class: `side ${side}`, "data-side": side, title: words("side"), onclick: () => this.activate(side) }, words(side))
    )
    this.place = number("place_sigma", 1, 0.01)
    this.weight = number("weight", MAX_WEIGHT, 0.05)
    this.placeName = make("span", {})
    this.chosen = make("span", { class: "chosen" })
    this.addButton = button("add", () => this.selected && this.plots[this.selected.axis].addBeside(this.selected.side, this.selected.index))
    this.removeButton = button("remove", () => this.selected && this.plots[this.selected.axis].remove(this.selected.side, this.selected.index))
    this.field = make("textarea", { rows: 4, spellcheck: "false", "aria-label": words("text_label"), oninput: () => this.typed(), onblur: () => this.endGesture() })
    this.textPart = make("details", { class: "as-text" }, make("summary", {}, words("text")), this.field)
    this.error = make("div", { class: "error", role: "alert" })
    this.status = make("div", { class: "status", role: "status" })
    this.usedCaption = make("div", { class: "used-caption" })
    return make(
      "div",
      { class: "dualreal-blend-editor", role: "group", "aria-label": words("title"), onkeydown: (event) => this.keepKeys(event) },
      make("div", { class: "row" }, this.choice, make("label", { class: "dial" }, words("early"), this.dial, this.dialValue)),
      make(
        "div", { class: "row" },
        make("span", { role: "group", class: "sides", "aria-label": words("side") }, ...this.sides),
        this.undoButton, this.redoButton, button("reset", () => this.choose(this.presets.dial.preset)),
        button("copy", () => copyText(this)), button("paste", () => pasteText(this))
      ),
      this.error,
      make("div", { class: "plot-title" }, words("sigma_plot")), this.plots.sigma.element,
      make("div", { class: "plot-title" }, words("depth_plot")), this.plots.depth.element,
      make(
        "div", { class: "row point-row" },
        this.chosen, make("label", {}, this.placeName, this.place), make("label", {}, words("weight"), this.weight), this.addButton, this.removeButton
      ),
      make("div", { class: "plot-title" }, words("map_title")),
      make("div", { class: "maps" }, ...this.maps.map((map) => map.element)),
      this.usedCaption, this.status, this.textPart
    )
  }

  // A text from outside: a loaded graph, an undo of the page, another widget
  take(text) {
    Object.assign(this, { text, draft: null })
    if (!this.gesture && !this.history.goTo(text)) this.history = new History(text)
    this.error.textContent = ""
    try {
      this.curves = parseCurves(text)
    } catch (error) {
      this.fail(error)
    }
    this.render()
  }

  // What an editor of the same node had, before the page made the node anew
  inherit(former) {
    if (!former.history.goTo(this.text)) return
    Object.assign(this, { history: former.history, active: former.active, selected: former.selected, used: former.used, usedFor: former.usedFor })
    this.render()
  }

  fail(error, key = null) {
    if (!(error instanceof CurvesError)) throw error
    const sentence = this.words.error(error)
    this.error.textContent = key ? this.words(key, sentence) : sentence
    this.status.textContent = ""
    this.textPart.open = true
  }

  beginGesture() {
    if (this.gesture) return
    this.gesture = { from: this.text }
    this.host.begin()
  }

  endGesture() {
    if (!this.gesture) return
    this.gesture = null
    this.history.push(this.text)
    this.host.end()
    this.render()
  }

  whole(act) {
    this.beginGesture()
    act()
    this.endGesture()
  }

  change(side, axis, points) {
    this.put({ ...this.curves, [side]: { ...this.curves[side], [axis]: points } })
  }

  put(curves, text = formatCurves(curves)) {
    Object.assign(this, { curves, text, draft: null })
    this.error.textContent = this.status.textContent = ""
    this.render()
    this.host.changed(text)
  }

  // A text that the user wrote or pasted; the curves keep what they were where it cannot be read
  read(text) {
    try {
      const curves = parseCurves(text)
      this.put(curves, text)
      return true
    } catch (error) {
      this.draft = text // stays in the field, to be put right
      this.fail(error, "not_taken")
      return false
    }
  }

  typed() {
    this.beginGesture()
    this.read(this.field.value)
  }

  go(way) {
    this.whole(() => {
      const text = this.history[way]()
      this.put(parseCurvesOrEven(text), text)
      this.take(text)
    })
  }

  choose(name) {
    const preset = this.presets.presets.find((one) => one.name === name)
    if (preset) this.whole(() => this.put(parseCurves(preset.curves), preset.curves))
  }

  ends() {
    return this.presets.dial.ends.map((end) => parseCurves(end.curves))
  }

  turn() {
    const [low, high] = this.presets.dial.ends.map((end) => end.value)
    this.beginGesture()
    this.put(between(...this.ends(), (Number(this.dial.value) - low) / (high - low)))
  }

  activate(side) {
    this.active = side
    this.render()
  }

  select(point) {
    Object.assign(this, { selected: point, active: point.side })
    this.render()
  }

  // The number fields
  enter() {
    if (!this.selected) return
    const { side, axis, index } = this.selected
    const [place, weight] = [this.place, this.weight].map((input) => input.valueAsNumber)
    if (Number.isNaN(place) || Number.isNaN(weight)) this.render()
    else this.whole(() => this.change(side, axis, movedPoint(this.curves[side][axis], index, place, weight)))
  }

  noteUse(message) {
    this.used = joinedUse(this.used, message)
    this.usedFor = this.text
    this.render()
  }

  keepKeys(event) {
    const isField = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)
    if (isField && !event.ctrlKey && !event.metaKey) event.stopPropagation() // letters and Delete are meant for the field
  }

  render() {
    const { words, selected, presets } = this
    const at = selected && this.curves[selected.side][selected.axis][selected.index]
    if (!at) this.selected = null
    set(this.element, { "data-theme": isDark(this.field) ? "dark" : "light" })
    for (const part of [...Object.values(this.plots), ...this.maps]) part.render()
    this.sides.forEach((button) => set(button, { "aria-pressed": String(button.dataset.side === this.active) }))
    set(this.undoButton, { disabled: !this.history.canUndo })
    set(this.redoButton, { disabled: !this.history.canRedo })
    this.renderChoice(formatCurves(this.curves), presets)
    for (const control of [this.place, this.weight, this.addButton, this.removeButton]) set(control, { disabled: !at })
    this.chosen.textContent = at
      ? words("point", words(selected.side), words(selected.axis), selected.index + 1, this.curves[selected.side][selected.axis].length)
      : words("none")
    const placeName = words(`place_${selected?.axis ?? "sigma"}`)
    this.placeName.textContent = placeName
    set(this.place, { "aria-label": placeName })
    for (const [input, value] of [[this.place, at?.[0]], [this.weight, at?.[1]]])
      if (document.activeElement !== input || !this.gesture) input.value = value === undefined ? "" : short(value)
    if (document.activeElement !== this.field) this.field.value = this.draft ?? this.text
    this.renderUse()
  }

  renderChoice(text, presets) {
    const [low, high] = presets.dial.ends.map((end) => end.value)
    const share = shareBetween(...this.ends(), this.curves)
    const named = presets.presets.find((one) => one.curves === text)?.name ?? (share === null ? "" : presets.dial.preset)
    const options = [["", this.words("own")], ...presets.presets.map(({ name }) => [name, this.words.preset(name)])]
    if (!this.choice.options.length) this.choice.append(...options.map(([value, label]) => make("option", { value }, label)))
    this.choice.options[0].hidden = named !== ""
    this.choice.value = named
    set(this.dial, { min: low, max: high, disabled: share === null })
    if (share !== null) this.dial.value = low + share * (high - low)
    this.dialValue.textContent = share === null ? "–" : short((low + share * (high - low)).toFixed(2))
  }

  renderUse() {
    const { words, used } = this
    this.usedCaption.textContent = used ? words("used", used.noise_levels.length, this.usedFor === this.text ? "" : words("used_now")) : ""
  }
}

// By the colour behind, as frontends name their themes in different ways
function isDark(element) {
  const [red, green, blue] = getComputedStyle(element).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [255, 255, 255]
  return 0.3 * red + 0.6 * green + 0.1 * blue < 128
}

function parseCurvesOrEven(text) {
  try {
    return parseCurves(text)
  } catch {
    return evenCurves()
  }
}
