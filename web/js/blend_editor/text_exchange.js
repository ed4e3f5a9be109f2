// Curves to the clipboard and from it; where the page may not use it, by way of the text field.

export async function copyText(editor) {
  try {
    await navigator.clipboard.writeText(editor.text)
    editor.status.textContent = editor.words("copied")
  } catch {
    openField(editor).select()
    editor.status.textContent = editor.words("copy_denied")
  }
}

export async function pasteText(editor) {
  let text
  try {
    text = await navigator.clipboard.readText()
  } catch {
    openField(editor).select()
    editor.status.textContent = editor.words("paste_denied")
    return
  }
  let isTaken = false
  editor.whole(() => (isTaken = editor.read(text)))
  if (isTaken) editor.status.textContent = editor.words("pasted")
}

function openField(editor) {
  editor.textPart.open = true
  editor.field.focus()
  return editor.field
}
