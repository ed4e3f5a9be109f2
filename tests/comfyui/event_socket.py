"""The websocket of a ComfyUI server: every event and every preview image, kept in the order they came."""

from __future__ import annotations

import json
import struct
import threading
import time
from dataclasses import dataclass

import websocket

OPEN_TIMEOUT = 30.0
PREVIEW_IMAGE, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
IMAGE_TYPES = {1: "image/jpeg", 2: "image/png"}


@dataclass(frozen=True)
class Event:
    """One JSON message: its type, its payload and when it came (`time.monotonic`)."""

    type: str
    payload: dict
    at: float


@dataclass(frozen=True)
class Preview:
    """One preview image as it was sent: PNG or JPEG bytes, and what the server said about it (node, prompt)."""

    image: bytes
    metadata: dict
    at: float


class EventSocket:
    """Listens in a thread from construction to `close`; `changed` is notified at every message."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self.previews: list[Preview] = []
        self.changed = threading.Condition()
        self.socket = websocket.create_connection(url, timeout=OPEN_TIMEOUT)
        # Without this word the server keeps back the previews that V3 nodes send.
        self.socket.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        self.socket.settimeout(None)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.socket.abort()
        self.thread.join(10)

    def of_prompt(self, prompt_id: str) -> list[Event]:
        return [event for event in list(self.events) if event.payload.get("prompt_id") == prompt_id]

    def _listen(self) -> None:
        while True:
            try:
                opcode, frame = self.socket.recv_data()
            except (OSError, websocket.WebSocketException):
                return
            if opcode not in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
                return
            with self.changed:
                if opcode == websocket.ABNF.OPCODE_TEXT:
                    message = json.loads(frame)
                    self.events.append(Event(message["type"], message.get("data") or {}, time.monotonic()))
                else:
                    self._keep_binary(frame)
                self.changed.notify_all()

    def _keep_binary(self, frame: bytes) -> None:
        (kind,) = struct.unpack_from(">I", frame)
        now = time.monotonic()
        if kind == PREVIEW_IMAGE:
            (image_type,) = struct.unpack_from(">I", frame, 4)
            self.previews.append(Preview(frame[8:], {"image_type": IMAGE_TYPES.get(image_type)}, now))
        elif kind == PREVIEW_WITH_METADATA:
            (size,) = struct.unpack_from(">I", frame, 4)
            self.previews.append(Preview(frame[8 + size :], json.loads(frame[8 : 8 + size]), now))
        elif kind == TEXT:
            (size,) = struct.unpack_from(">I", frame, 4)
            node, text = frame[8 : 8 + size].decode(), frame[8 + size :].decode()
            self.events.append(Event("progress_text", {"node": node, "text": text}, now))
