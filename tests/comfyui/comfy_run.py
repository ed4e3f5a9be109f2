"""What came out of one prompt: its outputs, events and previews, or the error that ended it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from event_socket import Event, Preview


class PromptRejected(Exception):
    """The server refused a graph before running it; `node_errors` maps a node id to what is wrong there."""

    def __init__(self, answer: dict) -> None:
        self.error: dict = answer.get("error") or {}
        self.node_errors: dict[str, dict] = answer.get("node_errors") or {}
        lines = [str(self.error.get("message", self.error))]
        for node_id, wrong in self.node_errors.items():
            lines += [f"node {node_id} ({wrong.get('class_type')}): {e.get('message')}: {e.get('details')}" for e in wrong["errors"]]
        super().__init__("\n".join(lines))


class RunFailed(Exception):
    """A run ended in an error (`kind` execution_error) or was stopped (execution_interrupted) at node `node_id`."""

    def __init__(self, kind: str, payload: dict, events: list[Event]) -> None:
        self.kind = kind
        self.node_id: str | None = payload.get("node_id")
        self.node_type: str | None = payload.get("node_type")
        self.message: str = payload.get("exception_message", "").strip()
        self.exception_type: str = payload.get("exception_type", "")
        self.traceback: str = "".join(payload.get("traceback") or [])
        self.events = events
        super().__init__(f"{kind} at node {self.node_id} ({self.node_type}): {self.message}\n{self.traceback}")

    @property
    def is_interrupt(self) -> bool:
        return self.kind == "execution_interrupted"


def saved_files(outputs: dict[str, dict]) -> list[dict]:
    """The files (filename, subfolder, type) in the ui outputs of a prompt's nodes, temporary previews included."""
    listed = [entry for ui in outputs.values() for value in ui.values() if isinstance(value, list) for entry in value]
    return [entry for entry in listed if isinstance(entry, dict) and "filename" in entry]


@dataclass(frozen=True)
class Run:
    """A prompt that succeeded. `outputs` maps a node id to its ui output: {"images": [...], "text": [...], ...}."""

    prompt_id: str
    outputs: dict[str, dict]
    events: list[Event]
    previews: list[Preview]
    seconds: float

    def files(self, node_id: str | None = None) -> list[dict]:
        """The saved files (filename, subfolder, type) of one node, or of all."""
        return saved_files(self.outputs if node_id is None else {node_id: self.outputs.get(node_id, {})})

    def text(self, node_id: str) -> str:
        """The text a node showed (PreviewText, PreviewAny and alike)."""
        return "\n".join(self.outputs[node_id]["text"])

    def report(self, node_id: str) -> dict:
        """What a BenchReport node said."""
        return json.loads(self.text(node_id))

    def executed_nodes(self) -> list[str]:
        """Ids of the nodes that ran, in order; the rest came from the cache."""
        nodes = [event.payload["node"] for event in self.events if event.type == "executing" and event.payload.get("node")]
        return list(dict.fromkeys(nodes))

    def progress(self, node_id: str) -> list[tuple[float, float]]:
        """Every distinct (value, maximum) that a node reported, in order."""
        states = [event.payload["nodes"].get(node_id) for event in self.events if event.type == "progress_state"]
        return list(dict.fromkeys((state["value"], state["max"]) for state in states if state))
