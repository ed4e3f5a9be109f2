"""Queues one graph for many identities, motions and prompts on a ComfyUI server, and collects what comes out.

The graph is a workflow in API format. It is changed by kind and title, never by node number: 'Load Image-Text (from Folder)' gets the
identity's folder, 'Load Video-Text (from Folder)' the motion's, the text node titled 'Prompt' the prompt; the trainer's run
and every saved file are named after the entry. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import base64
import copy
import csv
import json
import os
import re
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("identity", "motion", "prompt")
FOLDERS = {"identity": "LoadImageTextDataSetFromFolder", "motion": "LoadVideoTextDataSetFromFolder"}
PROMPT_CLASS, PROMPT_TITLE = "CLIPTextEncode", "Prompt"
TRAINER = "DualRealJointTrainer"
POLL_SECONDS = 1.0
EXAMPLE = """example of a list, CSV (or JSON: a list of objects with the same keys):

  identity,motion,prompt
  dogs/rex,dance,a photo of sks dog dancing
  dogs/rex,jump,a photo of sks dog jumping

Folders are those below the server's input folder; files lie there with a caption in a .txt of the same name."""


class BatchError(Exception):
    """One sentence for the user."""


@dataclass
class Entry:
    """One line of the list, and what became of it."""

    name: str
    run: str
    identity: str
    motion: str
    prompt: str
    state: str = "waiting"
    error: str | None = None
    prompt_id: str | None = None
    seconds: float | None = None
    files: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def fail(self, sentence: str) -> None:
        self.state, self.error = "failed", sentence
        print(f"{self.name}: {sentence}", file=sys.stderr, flush=True)


class Server:
    """ComfyUI over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.client_id = uuid.uuid4().hex

    def request(self, path: str, body: dict | None = None) -> bytes:
        """Raises: BatchError without an answer; urllib.error.HTTPError where the server refuses."""
        request = urllib.request.Request(self.url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError) as problem:
            raise BatchError(f"There is no ComfyUI at {self.url} ({problem}): start it, or name another with --server.") from problem

    def get(self, path: str) -> dict:
        return json.loads(self.fetch(path))

    def fetch(self, path: str) -> bytes:
        try:
            return self.request(path)
        except urllib.error.HTTPError as refusal:
            raise BatchError(f"{self.url}{path} answers {refusal.code} {refusal.reason}: is it ComfyUI 0.33 or newer?") from None

    def queue(self, graph: dict) -> str:
        """Raises: BatchError with the server's reason where it refuses the graph."""
        try:
            return json.loads(self.request("/prompt", {"prompt": graph, "client_id": self.client_id}))["prompt_id"]
        except urllib.error.HTTPError as refusal:
            raise BatchError(_reason(refusal.read(), graph)) from None

    def waiting(self) -> set[str]:
        """Ids of the prompts that run or wait."""
        queue = self.get("/queue")
        return {item[1] for part in ("queue_running", "queue_pending") for item in queue[part]}


class ProgressSocket:
    """The server's websocket, as far as progress needs it: whole text messages in, nothing out. Without it, polling goes on."""

    def __init__(self, server: Server) -> None:
        target = urllib.parse.urlsplit(server.url)
        is_secure = target.scheme == "https"
        port = target.port or (443 if is_secure else 80)
        self.connection = socket.create_connection((target.hostname, port), timeout=10)
        if is_secure:
            self.connection = ssl.create_default_context().wrap_socket(self.connection, server_hostname=target.hostname)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {target.path}/ws?clientId={server.client_id} HTTP/1.1\r\nHost: {target.netloc}\r\nUpgrade: websocket\r\n"
        head += f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        self.connection.sendall(head.encode())
        self.received = b""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        answer, self.received = self.received.split(b"\r\n\r\n", 1)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            raise OSError("the server does not speak websocket")

    def messages(self, seconds: float) -> list[dict]:
        """What arrives within so many seconds."""
        until, found = time.monotonic() + seconds, []
        while (left := until - time.monotonic()) > 0:
            self.connection.settimeout(left)
            try:
                self._receive()
            except TimeoutError:
                break
            while (frame := self._frame()) is not None:
                opcode, payload = frame
                if opcode == 8:
                    raise OSError("the server closed the websocket")
                if opcode == 1:
                    found.append(json.loads(payload))
        return found

    def _receive(self) -> None:
        chunk = self.connection.recv(65536)
        if not chunk:
            raise OSError("the server closed the websocket")
        self.received += chunk

    def _frame(self) -> tuple[int, bytes] | None:
        """The next whole frame; ComfyUI neither masks nor splits."""
        if len(self.received) < 2:
            return None
        size, offset = self.received[1] & 127, 2
        if size >= 126:
            form, width = (">H", 2) if size == 126 else (">Q", 8)
            if len(self.received) < 2 + width:
                return None
            (size,) = struct.unpack_from(form, self.received, 2)
            offset += width
        if len(self.received) < offset + size:
            return None
        opcode, payload = self.received[0] & 15, self.received[offset : offset + size]
        self.received = self.received[offset + size :]
        return opcode, payload


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path, help="workflow in API format, such as workflows/api/5_batch.json")
    parser.add_argument("list", type=Path, help="CSV or JSON with identity, motion, prompt, and optionally name")
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="address of ComfyUI (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("batch_results"), help="folder for the results (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        graph, entries, server = read_graph(options.graph), read_list(options.list), Server(options.server)
        server.get("/system_stats")
        options.out.mkdir(parents=True, exist_ok=True)
        run(server, graph, entries, options.out)
    except BatchError as problem:
        print(problem, file=sys.stderr)
        return 2
    finished = sum(entry.state == "done" for entry in entries)
    print(f"{finished} of {len(entries)} entries are done; see {options.out / 'results.json'}")
    return 0 if finished == len(entries) else 1


def run(server: Server, graph: dict, entries: list[Entry], out: Path) -> None:
    """Queues all entries, follows them to their ends, and keeps `out/results.json` up to date meanwhile."""
    graphs = {}
    for entry in entries:
        graphs[entry.name] = fill(graph, entry)
        try:
            entry.prompt_id = server.queue(graphs[entry.name])
            entry.state = "queued"
        except BatchError as refusal:
            entry.fail(str(refusal))
    _write_results(entries, out)
    follower = Follower(server, graphs)
    while open_entries := [entry for entry in entries if entry.state == "queued"]:
        follower.show(open_entries)
        # The queue is read before the histories: what is in neither was removed, not just finished.
        waiting = server.waiting()
        for entry in open_entries:
            history = server.get(f"/history/{entry.prompt_id}")
            if history:
                _finish(server, entry, history[entry.prompt_id], out)
                follower.leave(entry)
                _write_results(entries, out)
            elif entry.prompt_id not in waiting:
                entry.fail("The server has forgotten this job: it was removed from the queue, or the server was restarted. Queue it again.")


class Follower:
    """Prints how far the running entry is, from the websocket where there is one."""

    def __init__(self, server: Server, graphs: dict[str, dict]) -> None:
        self.graphs, self.last = graphs, ""
        self.is_terminal = sys.stdout.isatty()
        try:
            self.socket: ProgressSocket | None = ProgressSocket(server)
        except OSError:
            self.socket = None

    def show(self, entries: list[Entry]) -> None:
        """Waits a moment, and shows the newest progress of any of the entries."""
        if self.socket is None:
            time.sleep(POLL_SECONDS)
            return
        try:
            messages = self.socket.messages(POLL_SECONDS)
        except OSError:
            self.socket = None
            return
        by_id = {entry.prompt_id: entry for entry in entries}
        for message in reversed(messages):
            payload = message.get("data") or {}
            entry = by_id.get(payload.get("prompt_id"))
            if message.get("type") == "progress_state" and entry:
                self._print(entry, payload["nodes"])
                return

    def leave(self, entry: Entry) -> None:
        if entry.state == "done":
            self._line(f"{entry.name}: done in {entry.seconds:.0f} s, {', '.join(entry.files) or 'without files'}", ends=True)

    def _print(self, entry: Entry, nodes: dict[str, dict]) -> None:
        running = [(key, node) for key, node in nodes.items() if node.get("state") == "running"]
        if running:
            key, node = running[-1]
            title = _title(self.graphs[entry.name], key)
            self._line(f"{entry.name}: {title} {node['value']:.0f}/{node['max']:.0f}")

    def _line(self, text: str, ends: bool = False) -> None:
        if self.is_terminal:
            print(f"\r\x1b[K{text}", end="\n" if ends else "", flush=True)
        elif ends or text.split(" ")[:-1] != self.last.split(" ")[:-1]:
            # In a log, a node says once that it runs.
            print(text, flush=True)
        self.last = text


def read_graph(path: Path) -> dict[str, dict]:
    graph = _read_json(path)
    if not isinstance(graph, dict) or not all(isinstance(node, dict) and "class_type" in node for node in graph.values()):
        raise BatchError(f"{path} is not in API format: export it with 'Export (API)' from the menu of ComfyUI.")
    for role, kind in FOLDERS.items():
        if not _nodes(graph, kind):
            raise BatchError(f"{path} has no {kind} node to give the {role} folder to: start from workflows/api/5_batch.json.")
    if not _nodes(graph, PROMPT_CLASS, PROMPT_TITLE):
        raise BatchError(f"{path} has no {PROMPT_CLASS} titled '{PROMPT_TITLE}': give the node with the prompt that title.")
    return graph


def read_list(path: Path) -> list[Entry]:
    if path.suffix.lower() == ".json":
        rows = _read_json(path)
    else:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as problem:
            raise BatchError(f"{path} cannot be read as CSV ({problem}): check the path and the file.") from problem
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BatchError(f"{path} holds no entries: give at least one with {', '.join(COLUMNS)}.")
    entries: list[Entry] = []
    for number, row in enumerate(rows, start=1):
        values = {column: str(row.get(column) or "").strip() for column in (*COLUMNS, "name")}
        missing = [column for column in COLUMNS if not values[column]]
        if missing:
            raise BatchError(f"{path}, entry {number}: {', '.join(missing)} is missing.")
        label = values.pop("name") or f"{values['identity']} {values['motion']}"
        # The run is named without the number, so that entries of one pair train it once, wherever they stand in the list.
        run = re.sub(r"[^\w .-]+", "-", label).strip(" .-").replace("..", ".")[:76] or "pair"
        entries.append(Entry(f"{number:03} {run}", run, **values))
    return entries


def fill(graph: dict, entry: Entry) -> dict:
    """The graph with an entry's folders, prompt and names."""
    graph = copy.deepcopy(graph)
    for role, kind in FOLDERS.items():
        for node in _nodes(graph, kind):
            node["inputs"]["folder"] = getattr(entry, role)
    for node in _nodes(graph, PROMPT_CLASS, PROMPT_TITLE):
        node["inputs"]["text"] = entry.prompt
    for node in _nodes(graph, TRAINER):
        node["inputs"]["name"] = entry.run
    for node in graph.values():
        prefix = node["inputs"].get("filename_prefix")
        if isinstance(prefix, str):
            node["inputs"]["filename_prefix"] = f"{prefix}/{entry.name}"
    return graph


def _finish(server: Server, entry: Entry, record: dict, out: Path) -> None:
    """Takes over what the history says of a job that ended."""
    messages = dict(record["status"]["messages"])
    if "execution_start" in messages:
        ends = [payload["timestamp"] for kind, payload in messages.items() if kind != "execution_start" and "timestamp" in payload]
        entry.seconds = round((max(ends, default=0) - messages["execution_start"]["timestamp"]) / 1000, 1)
    if record["status"]["status_str"] != "success":
        wrong = messages.get("execution_error")
        if wrong:
            title = _title(record["prompt"][2], wrong["node_id"])
            entry.fail(f"{title}: {' '.join(wrong['exception_message'].split())}")
        else:
            entry.fail("The job was interrupted on the server. Queue it again.")
        return
    for key, shown in record["outputs"].items():
        for value in shown.values():
            for item in value if isinstance(value, list) else []:
                if isinstance(item, dict) and item.get("type") == "output":
                    entry.files.append(_download(server, item, entry, out))
                elif isinstance(item, str):
                    entry.texts[_title(record["prompt"][2], key)] = item
    entry.state = "done"


def _download(server: Server, item: dict, entry: Entry, out: Path) -> str:
    query = urllib.parse.urlencode({key: item.get(key, "") for key in ("filename", "subfolder", "type")})
    name = f"{entry.name}{Path(item['filename']).suffix}"
    if name in entry.files:
        name = f"{entry.name} {Path(item['filename']).name}"
    (out / name).write_bytes(server.fetch(f"/view?{query}"))
    return name


def _write_results(entries: list[Entry], out: Path) -> None:
    draft = out / "results.json.part"
    draft.write_text(json.dumps([vars(entry) for entry in entries], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(out / "results.json")


def _nodes(graph: dict, kind: str, title: str | None = None) -> list[dict]:
    return [node for key, node in graph.items() if node["class_type"] == kind and title in (None, _title(graph, key))]


def _title(graph: dict, key: str) -> str:
    node = graph.get(key, {})
    return node.get("_meta", {}).get("title") or node.get("class_type", f"node {key}")


def _reason(answer: bytes, graph: dict) -> str:
    """The server's refusal in one sentence."""
    try:
        refusal = json.loads(answer)
    except ValueError:
        return f"The server refused the graph: {answer[:200].decode(errors='replace')}"
    for key, wrong in (refusal.get("node_errors") or {}).items():
        for error in wrong["errors"]:
            extra = error.get("extra_info") or {}
            if error.get("type") == "value_not_in_list":
                name, value = extra.get("input_name"), extra.get("received_value")
                return f"{_title(graph, key)}: the server has no {name} {value!r}; put it there or correct the entry."
            return f"{_title(graph, key)}: {error.get('message')}: {error.get('details')}"
    return f"The server refused the graph: {(refusal.get('error') or {}).get('message', 'no reason given')}"


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise BatchError(f"{path} cannot be read as JSON ({problem}): check the path and the file.") from problem


if __name__ == "__main__":
    sys.exit(main())
