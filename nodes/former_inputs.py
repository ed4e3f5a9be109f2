"""Graphs that were written when inputs had other names: their values are carried over by the table that the page uses too.

`web/js/former_inputs.json`: by node and former input, today's name, and the node it moved to, which is wired into `options`;
null where it is gone. `true_at`: the number at which the choice of yes or no that took its place is yes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

TABLE = Path(__file__).parents[1] / "web" / "js" / "former_inputs.json"
OPTIONS = "options"


def register(add_on_prompt_handler) -> None:
    """Has every prompt translated before ComfyUI checks it; what was changed goes to the log."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))

    def translate_request(request: dict) -> dict:
        for sentence in translate(request.get("prompt"), table):
            logging.warning(sentence)
        return request

    add_on_prompt_handler(translate_request)


def translate(prompt: object, table: dict[str, dict[str, dict | None]]) -> list[str]:
    """Gives former inputs of a prompt in API format their present names, in place; a sentence for each node that had some."""
    sentences = []
    for node_id, node in list(prompt.items()) if isinstance(prompt, dict) else ():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            continue
        changed = table.get(str(node.get("class_type")), {})
        former = {name: change for name, change in changed.items() if name in node["inputs"]}
        if not former:
            continue
        inputs, moved, changes = node["inputs"], {}, []
        for name, change in former.items():
            value = inputs.pop(name)
            if change is None:
                changes.append(f"{name} is gone")
                continue
            if change["name"] != name:
                when = f", which is true where it was {change['true_at']}" if "true_at" in change else ""
                changes.append(f"{name} is now {change['name']}{when}")
            if "true_at" in change and isinstance(value, int | float):
                value = value == change["true_at"]
            moved_to = moved.setdefault(change["node"], {}) if "node" in change else inputs
            moved_to.setdefault(change["name"], value)
        for class_type, values in moved.items():
            options_id = f"{node_id}:{OPTIONS}"
            prompt.setdefault(options_id, {"class_type": class_type, "inputs": values, "_meta": {"title": class_type}})
            inputs.setdefault(OPTIONS, [options_id, 0])
            changes.append(f"what is not in this node any more is in {class_type}")
        sentences.append(f"{node['class_type']} {node_id} has former names of inputs, which were carried over: {', '.join(changes)}.")
    return sentences
