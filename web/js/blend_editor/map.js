// The weights of one side as a map: denoising across, depth down; below it what a run used.
import { MAX_WEIGHT, short, weightOf } from "./curves.js"
import { make, set } from "./dom.js"

const COLUMNS = 32
const ROWS = 12
const FULL = 2 // a weight that has the side's full colour

export class BlendMap {
  constructor(side, editor) {
    Object.assign(this, { side, editor })
    this.drawn = make("canvas", { width: COLUMNS, height: ROWS, role: "img" })
    this.used = make("canvas", { class: "map-used", role: "img", hidden: true })
    this.caption = make("div", { class: "map-caption" })
    this.element = make("div", { class: `map ${side}` }, this.caption, this.drawn, this.used)
  }

  render() {
    const { words, curves, used } = this.editor
    const name = words(this.side)
    const weights = Array.from({ length: ROWS }, (_, row) =>
      Array.from({ length: COLUMNS }, (_, column) => weightOf(curves, this.side, 1 - column / (COLUMNS - 1), row / (ROWS - 1)))
    )
    this.paint(this.drawn, weights)
    const [least, most] = extremes(weights)
    const says = [words("map_label", name, least, most)]
    set(this.drawn, { "aria-label": says[0] })
    set(this.used, { hidden: !used })
    if (used) {
      const rows = usedRows(used.noise_levels, used[this.side])
      this.paint(this.used, rows)
      says.push(words("map_used", name, ...extremes(used[this.side])))
      set(this.used, { "aria-label": `${name}, ${says[1]}` })
    }
    this.caption.textContent = says.join("; ")
  }

  paint(canvas, weights) {
    if (canvas.width !== weights[0].length) canvas.width = weights[0].length
    if (canvas.height !== weights.length) canvas.height = weights.length
    const context = canvas.getContext("2d")
    context.clearRect(0, 0, canvas.width, canvas.height)
    context.fillStyle = getComputedStyle(this.element).getPropertyValue(`--${this.side}`) || "#888"
    weights.forEach((row, y) =>
      row.forEach((weight, x) => {
        context.globalAlpha = Math.min(weight / FULL, 1)
        context.fillRect(x, y, 1, 1)
      })
    )
  }
}

// [group][column]: at each column the weights of the step whose noise is nearest
function usedRows(levels, weights) {
  const groups = Math.max(...weights.map((row) => row.length))
  const nearest = (level) => levels.reduce((best, other, index) => (Math.abs(other - level) < Math.abs(levels[best] - level) ? index : best), 0)
  const steps = Array.from({ length: COLUMNS }, (_, column) => nearest(1 - column / (COLUMNS - 1)))
  return Array.from({ length: groups }, (_, group) => steps.map((step) => weights[step][group] ?? 0))
}

function extremes(rows) {
  const values = rows.flat()
  return [Math.min(...values), Math.max(...values)].map((value) => short(Math.min(value, MAX_WEIGHT ** 2).toFixed(2)))
}
