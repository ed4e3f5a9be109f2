// The texts that an editor has held, and where in them it is.
const LIMIT = 100

export class History {
  constructor(text) {
    this.texts = [text]
    this.place = 0
  }

  get text() {
    return this.texts[this.place]
  }

  get canUndo() {
    return this.place > 0
  }

  get canRedo() {
    return this.place < this.texts.length - 1
  }

  // A text that a finished gesture left; what was undone before it is forgotten
  push(text) {
    if (text === this.text) return
    this.texts = [...this.texts.slice(0, this.place + 1), text].slice(-LIMIT)
    this.place = this.texts.length - 1
  }

  undo() {
    if (this.canUndo) this.place -= 1
    return this.text
  }

  redo() {
    if (this.canRedo) this.place += 1
    return this.text
  }

  // Goes to where the text is, the nearest such place; false where it never was
  goTo(text) {
    const places = this.texts.flatMap((other, place) => (other === text ? [place] : []))
    if (!places.length) return false
    const distance = (place) => Math.abs(place - this.place)
    this.place = places.reduce((nearest, place) => (distance(place) < distance(nearest) ? place : nearest))
    return true
  }
}
