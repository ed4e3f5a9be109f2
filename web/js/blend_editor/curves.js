// Blend curves as dualreal_core/method/curves.py has them: the text form, the weights, and what a hand does to points.
export const SIDES = ["identity", "motion"]
export const AXES = ["sigma", "depth"]
export const MAX_WEIGHT = 4
const LEVEL = [[0, 1], [1, 1]]
const GAP = 0.001 // between the places of two points
const LINE = /^(identity|motion)\s+(sigma|depth)\s+(\S.*)$/
const NUMBER = /^[+-]?(\d(_?\d)*\.?(\d(_?\d)*)?|\.\d(_?\d)*)(e[+-]?\d(_?\d)*)?$/i

// A text that cannot be read. `reason` names the sentence, `parts` what it quotes.
export class CurvesError extends Error {
  constructor(reason, ...parts) {
    super(`${reason}: ${parts.join(", ")}`)
    this.reason = reason
    this.parts = parts
  }
}

// -> { identity: { sigma: points, depth: points }, motion: { ... } }; points are [place, weight], places rising
export function parseCurves(text) {
  const curves = evenCurves()
  const seen = new Set()
  for (const line of text.split(/[\n;]/)) {
    const plain = line.split("#")[0].trim()
    if (!plain) continue
    const match = LINE.exec(plain)
    if (!match) throw new CurvesError("line", plain)
    const [, side, axis, points] = match
    const read = parsePoints(points, plain)
    if (seen.has(`${side} ${axis}`)) throw new CurvesError("twice", `${side} ${axis}`)
    seen.add(`${side} ${axis}`)
    curves[side][axis] = read
  }
  return curves
}

export function evenCurves() {
  return Object.fromEntries(SIDES.map((side) => [side, { sigma: copy(LEVEL), depth: copy(LEVEL) }]))
}

function parsePoints(text, line) {
  const points = new Map()
  for (const part of text.trim().split(/\s+/)) {
    const numbers = part.split(":")
    if (numbers.length !== 2 || !numbers.every((number) => NUMBER.test(number))) throw new CurvesError("point", part, line)
    const [place, weight] = numbers.map((number) => Number(number.replaceAll("_", "")))
    if (!(place >= 0 && place <= 1 && weight >= 0 && weight <= MAX_WEIGHT)) throw new CurvesError("range", part, line)
    if (points.has(place)) throw new CurvesError("same", short(place), line)
    points.set(place, weight)
  }
  return [...points].sort(([one], [other]) => one - other)
}

export function formatCurves(curves) {
  const lines = SIDES.flatMap((side) => AXES.map((axis) => [side, axis, curves[side][axis]]))
    .filter(([, , points]) => !samePoints(points, LEVEL))
    .map(([side, axis, points]) => `${side} ${axis} ${formatPoints(points, axis)}`)
  return lines.join("\n") || `identity sigma ${formatPoints(LEVEL, "sigma")}`
}

function formatPoints(points, axis) {
  const ordered = axis === "sigma" ? [...points].reverse() : points
  return ordered.map(([place, weight]) => `${short(place)}:${short(weight)}`).join(" ")
}

// Six significant digits, as Python's 'g' would have them
export function short(number) {
  return String(Number(Number(number).toPrecision(6)))
}

export function samePoints(one, other) {
  return one.length === other.length && one.every(([place, weight], index) => place === other[index][0] && weight === other[index][1])
}

// Straight between points, level outside of them
export function weightAt(points, place) {
  const after = points.findIndex(([other]) => other > place)
  if (after === 0) return points[0][1]
  if (after < 0) return points.at(-1)[1]
  const [[low, from], [high, to]] = [points[after - 1], points[after]]
  return from + ((place - low) / (high - low)) * (to - from)
}

// The weight of a side at a noise level and a depth, in units of an even blend's
export function weightOf(curves, side, level, depth) {
  return weightAt(curves[side].sigma, level) * weightAt(curves[side].depth, depth)
}

// A point elsewhere: within the plot, and between its neighbours
export function movedPoint(points, index, place, weight) {
  const least = index ? points[index - 1][0] + GAP : 0
  const most = index < points.length - 1 ? points[index + 1][0] - GAP : 1
  const moved = copy(points)
  moved[index] = [round(clamp(place, least, most)), round(clamp(weight, 0, MAX_WEIGHT))]
  return moved
}

// -> [points with one more, its index]; null where one is there already
export function withPoint(points, place, weight) {
  const at = round(clamp(place, 0, 1))
  if (points.some(([other]) => Math.abs(other - at) < GAP)) return null
  const index = points.filter(([other]) => other < at).length
  return [[...copy(points.slice(0, index)), [at, round(clamp(weight, 0, MAX_WEIGHT))], ...copy(points.slice(index))], index]
}

// -> [place, weight] in the middle of the wider gap beside a point, or beside the outermost
export function besidePoint(points, index) {
  const places = [0, ...points.map(([place]) => place), 1]
  const [before, at, after] = places.slice(index, index + 3)
  const place = after - at >= at - before ? (at + after) / 2 : (before + at) / 2
  return [place, weightAt(points, place)]
}

export function withoutPoint(points, index) {
  return points.length > 1 ? copy(points.filter((_, other) => other !== index)) : copy(points)
}

// Curves between two that have the same places: the share 0 is the first
export function between(one, other, share) {
  const mixed = evenCurves()
  for (const side of SIDES)
    for (const axis of AXES)
      mixed[side][axis] = one[side][axis].map(([place, weight], index) => [place, round(weight + share * (other[side][axis][index][1] - weight))])
  return mixed
}

// Where between two curves others lie: the share, or null where they do not
export function shareBetween(one, other, curves) {
  for (const side of SIDES)
    for (const axis of AXES)
      for (const [index, [, from]] of one[side][axis].entries()) {
        const to = other[side][axis][index][1]
        const weight = curves[side][axis][index]?.[1]
        if (from === to || weight === undefined) continue
        const share = (weight - from) / (to - from)
        return formatCurves(between(one, other, share)) === formatCurves(curves) && share >= 0 && share <= 1 ? share : null
      }
  return null
}

export function copy(points) {
  return points.map((point) => [...point])
}

function clamp(number, least, most) {
  return Math.min(Math.max(number, Math.min(least, most)), most)
}

function round(number) {
  return Math.round(number * 1000) / 1000
}
