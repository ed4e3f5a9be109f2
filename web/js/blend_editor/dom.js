// Elements with attributes, children and listeners in one call.
const SVG = "http://www.w3.org/2000/svg"

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children)
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children)
}

export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
    else if (value === false || value === null || value === undefined) element.removeAttribute(name)
    else element.setAttribute(name, value === true ? "" : value)
  }
  return element
}

function fill(element, attributes, children) {
  set(element, attributes).append(...children)
  return element
}
