// One plot: both sides' curves over one axis, their points to be dragged or moved by keys, and behind them what a run used.
import { MAX_WEIGHT, SIDES, besidePoint, movedPoint, short, withPoint, withoutPoint } from "./curves.js"
import { draw, make, set } from "./dom.js"
import { usedRanges } from "./used.js"

const MARGIN = { left: 36, right: 12, top: 10, bottom: 18 }
const LOW_TOP = 2 // the highest weight shown while no point lies above it
const STEPS = { place: [0.01, 0.1], weight: [0.05, 0.5] } // of an arrow key, plain and with Shift
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }
const MARKERS = { identity: "M0,-6A6,6 0 1 1 0,6A6,6 0 1 1 0,-6Z", motion: "M-5.5,-5.5H5.5V5.5H-5.5Z" }

export class CurvePlot {
  constructor(axis, editor) {
    Object.assign(this, { axis, editor, size: [300, 120], top: LOW_TOP, drag: null })
    const words = editor.words
    this.grid = draw("g", { class: "grid", "aria-hidden": "true" })
    this.used = draw("g", { class: "used", "aria-hidden": "true" })
    this.lines = Object.fromEntries(SIDES.map((side) => [side, draw("path", { class: `line ${side}` })]))
    this.points = Object.fromEntries(SIDES.map((side) => [side, draw("g", {})]))
    this.svg = draw(
      "svg",
      { class: "plot", role: "group", "aria-label": `${words(`${axis}_plot`)}. ${words("plot_help", MAX_WEIGHT)}`, preserveAspectRatio: "none" },
      this.grid, this.used, ...Object.values(this.lines), ...Object.values(this.points)
    )
    set(this.svg, {
      onpointerdown: (event) => this.press(event),
      onpointermove: (event) => this.drag && this.dragTo(event),
      onpointerup: () => this.release(),
      onpointercancel: () => this.release(),
      onlostpointercapture: () => this.release(),
      ondblclick: (event) => this.addAt(event),
      oncontextmenu: (event) => this.removeAt(event),
      onkeydown: (event) => this.key(event),
      onkeyup: () => editor.endGesture(),
      onfocusin: (event) => this.focused(event),
      onfocusout: () => this.drag || editor.endGesture(),
    })
    this.element = make("div", { class: `plot-frame ${axis}` }, this.svg)
    this.observer = new ResizeObserver(() => this.fit())
    this.observer.observe(this.element)
  }

  fit() {
    const { clientWidth, clientHeight } = this.element // before any zoom of the canvas
    if (!clientWidth || !clientHeight) return
    this.size = [clientWidth, clientHeight]
    this.editor.render()
  }

  x(place) {
    const width = this.size[0] - MARGIN.left - MARGIN.right
    return MARGIN.left + (this.axis === "sigma" ? 1 - place : place) * width
  }

  y(weight) {
    return MARGIN.top + (1 - Math.min(weight, this.top) / this.top) * (this.size[1] - MARGIN.top - MARGIN.bottom)
  }

  // Where an event is: on the page everything may be scaled, so by the share of what the plot takes up there
  at(event) {
    const box = this.svg.getBoundingClientRect()
    const across = (((event.clientX - box.left) / box.width) * this.size[0] - MARGIN.left) / (this.size[0] - MARGIN.left - MARGIN.right)
    const down = (((event.clientY - box.top) / box.height) * this.size[1] - MARGIN.top) / (this.size[1] - MARGIN.top - MARGIN.bottom)
    return [this.axis === "sigma" ? 1 - across : across, (1 - down) * this.top]
  }

  render() {
    const { curves, active, selected, used } = this.editor
    if (!this.drag) this.top = SIDES.some((side) => curves[side][this.axis].some(([, weight]) => weight >= LOW_TOP)) ? MAX_WEIGHT : LOW_TOP
    set(this.svg, { viewBox: `0 0 ${this.size.join(" ")}`, "data-top": this.top })
    this.renderGrid()
    this.renderUsed(used)
    for (const side of SIDES) {
      const points = curves[side][this.axis]
      const corners = [[0, points[0][1]], ...points, [1, points.at(-1)[1]]]
      set(this.lines[side], { d: `M${corners.map(([place, weight]) => `${this.x(place)},${this.y(weight)}`).join("L")}` })
      this.renderPoints(side, points, selected)
    }
    const other = SIDES.find((side) => side !== active)
    const isOnTop = this.points[other].compareDocumentPosition(this.points[active]) & Node.DOCUMENT_POSITION_FOLLOWING
    if (!isOnTop) this.svg.insertBefore(this.points[other], this.points[active]) // what has the focus stays where it is
  }

  renderGrid() {
    const [width, height] = this.size
    const marks = this.axis === "sigma" ? [1, 0.75, 0.5, 0.25, 0] : [0, 0.5, 1]
    const names = this.axis === "sigma" ? { 1: "noise", 0: "clean" } : { 0: "first", 1: "last" }
    const rows = Array.from({ length: 5 }, (_, index) => (index * this.top) / 4)
    const anchor = (place) => (this.x(place) < 60 ? "start" : this.x(place) > width - 60 ? "end" : "middle")
    this.grid.replaceChildren(
      ...rows.flatMap((weight) => [
        draw("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(weight), y2: this.y(weight), class: weight === 1 ? "even" : "" }),
        draw("text", { x: MARGIN.left - 10, y: this.y(weight) + 3.5, "text-anchor": "end" }, short(weight)),
      ]),
      ...marks.flatMap((place) => [
        draw("line", { x1: this.x(place), x2: this.x(place), y1: MARGIN.top, y2: height - MARGIN.bottom }),
        draw(
          "text",
          { x: this.x(place), y: height - 5, "text-anchor": anchor(place) },
          names[place] ? `${short(place)} ${this.editor.words(names[place])}` : short(place)
        ),
      ])
    )
  }

  renderUsed(used) {
    const bars = used ? SIDES.flatMap((side, index) => usedRanges(used, side, this.axis).map((range) => this.bar(side, index, range))) : []
    this.used.replaceChildren(...bars)
  }

  // The least to the most as a bar, the mean as a mark; both sides beside each other
  bar(side, index, [place, least, mean, most]) {
    const x = this.x(place) + (index - 0.5) * 6
    return draw(
      "g",
      { class: side },
      draw("line", { x1: x, x2: x, y1: Math.max(this.y(least), this.y(most) + 1), y2: this.y(most) }),
      draw("path", { d: MARKERS[side], transform: `translate(${x} ${this.y(mean)}) scale(.6)` })
    )
  }

  renderPoints(side, points, selected) {
    const layer = this.points[side]
    while (layer.childElementCount > points.length) layer.lastChild.remove()
    while (layer.childElementCount < points.length)
      layer.append(
        draw(
          "g",
          { class: `point ${side}`, role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": MAX_WEIGHT },
          draw("circle", { r: 11, class: "reach" }),
          draw("path", { d: MARKERS[side] })
        )
      )
    points.forEach(([place, weight], index) => {
      const words = this.editor.words
      const isSelected = selected?.side === side && selected.axis === this.axis && selected.index === index
      set(layer.children[index], {
        transform: `translate(${this.x(place)} ${this.y(weight)})`,
        "data-side": side,
        "data-index": index,
        class: `point ${side}${isSelected ? " selected" : ""}`,
        "aria-label": words("point", words(side), words(this.axis), index + 1, points.length),
        "aria-valuenow": short(weight),
        "aria-valuetext": words(`value_${this.axis}`, short(place), short(weight)),
      })
    })
  }

  pointOf(event) {
    const element = event.target.closest?.(".point")
    return element && { side: element.dataset.side, index: Number(element.dataset.index) }
  }

  focus(side, index) {
    this.points[side].children[index]?.focus({ preventScroll: true })
  }

  focused(event) {
    const point = this.pointOf(event)
    if (point) this.editor.select({ ...point, axis: this.axis })
  }

  press(event) {
    const point = this.pointOf(event)
    if (!point || event.button !== 0) return
    event.preventDefault()
    event.stopPropagation()
    this.focus(point.side, point.index)
    this.svg.setPointerCapture(event.pointerId)
    const [place, weight] = this.editor.curves[point.side][this.axis][point.index]
    const [atPlace, atWeight] = this.at(event)
    this.drag = { ...point, offset: [place - atPlace, weight - atWeight] } // the point does not jump to where it was taken
    this.editor.beginGesture()
  }

  dragTo(event) {
    const { side, index, offset } = this.drag
    const [place, weight] = this.at(event)
    const points = this.editor.curves[side][this.axis]
    this.editor.change(side, this.axis, movedPoint(points, index, place + offset[0], Math.min(weight + offset[1], this.top)))
  }

  release() {
    if (!this.drag) return
    this.drag = null
    this.editor.endGesture()
    this.editor.render() // the highest weight shown may be another now
  }

  addAt(event) {
    event.preventDefault()
    event.stopPropagation()
    if (!this.pointOf(event)) this.add(this.editor.active, ...this.at(event))
  }

  removeAt(event) {
    const point = this.pointOf(event)
    if (!point || event.button !== 2) return
    event.preventDefault()
    event.stopPropagation()
    this.remove(point.side, point.index)
  }

  add(side, place, weight) {
    const added = withPoint(this.editor.curves[side][this.axis], place, weight)
    if (added) this.finish(side, ...added)
  }

  addBeside(side, index) {
    this.add(side, ...besidePoint(this.editor.curves[side][this.axis], index))
  }

  remove(side, index) {
    const points = withoutPoint(this.editor.curves[side][this.axis], index)
    this.finish(side, points, Math.min(index, points.length - 1))
  }

  // A change that is a gesture of its own; the point at the index is chosen afterwards
  finish(side, points, index) {
    this.editor.whole(() => this.editor.change(side, this.axis, points))
    this.editor.select({ side, axis: this.axis, index })
    this.focus(side, index)
  }

  key(event) {
    const point = this.pointOf(event)
    if (!point || event.ctrlKey || event.metaKey || event.altKey) return
    const { side, index } = point
    const points = this.editor.curves[side][this.axis]
    const [place, weight] = points[index]
    const steps = (kind) => STEPS[kind][event.shiftKey ? 1 : 0]
    const moveTo = (toPlace, toWeight) => {
      this.editor.beginGesture() // until the key is let go
      this.editor.change(side, this.axis, movedPoint(points, index, toPlace, toWeight))
    }
    if (event.key in ARROWS) {
      const [across, up] = ARROWS[event.key]
      const way = this.axis === "sigma" ? -1 : 1 // noise lies at the left
      moveTo(place + way * across * steps("place"), weight + up * steps("weight"))
    } else if (event.key === "Home" || event.key === "End") moveTo(place, event.key === "Home" ? 0 : MAX_WEIGHT)
    else if (event.key === "+" || event.key === "Insert") this.addBeside(side, index)
    else if (event.key === "Delete" || event.key === "Backspace") this.remove(side, index)
    else return
    event.preventDefault()
    event.stopPropagation() // or the page would delete or move the node
  }
}
