"""Queues one graph for many identities, motions and prompts on a ComfyUI server, and collects what comes out.

The graph is a workflow in API format. It is changed by kind and title, never by node number: 'Load Photos' or 'Load Image-Text (from
Folder)' gets the identity's folder, 'Load Clips' or 'Load Video-Text (from Folder)' the motion's, the text node titled 'Prompt' the
prompt; the trainer's run and every saved file are named after the entry. Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import csv
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = ("identity", "motion", "prompt")
KNOWN = {*COLUMNS, "name"}
SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
FOLDERS = {
    "identity": ("LoadImageTextDataSetFromFolder", "DualRealLoadPhotos"),
    "motion": ("LoadVideoTextDataSetFromFolder", "DualRealLoadClips"),
}
PROMPT_CLASS, PROMPT_TITLE = "CLIPTextEncode", "Prompt"
TRAINER = "DualRealJointTrainer"
POLL_SECONDS = 1.0
ANSWER_SECONDS = 60.0
# A server that is busy, or whose network is down for a moment, is asked again for so long.
PATIENCE_SECONDS, RETRY_SECONDS = 120.0, 2.0
EXAMPLE = """example of a list, CSV (or JSON: a list of objects with the same keys):

  identity,motion,prompt
  dogs/rex,dance,a photo of sks dog dancing
  dogs/rex,jump,a photo of sks dog jumping

Columns are separated by commas, semicolons or tabs; a text that holds such a sign stands in double quotes.
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
    graph_sha256: str | None = None
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
        self.patience = 0.0

    def request(self, path: str, body: dict | None = None) -> bytes:
        """Raises: BatchError without an answer; urllib.error.HTTPError where the server refuses."""
        request = urllib.request.Request(self.url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        # What is queued is sent once: a lost answer does not say that the server did not take it.
        until = time.monotonic() + (self.patience if body is None else 0)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                    return answer.read()
            except (OSError, ValueError, http.client.HTTPException) as problem:
                is_over = time.monotonic() >= until
                if isinstance(problem, urllib.error.HTTPError) and (is_over or problem.code < 500):
                    raise
                if is_over:
                    silence = f"{self.url} has stopped answering" if self.patience else f"There is no ComfyUI at {self.url}"
                    advice = "start it, or name another with --server, and run the same list again to collect what it has finished"
                    raise BatchError(f"{silence} ({problem}): {advice}.") from problem
            time.sleep(RETRY_SECONDS)

    def get(self, path: str) -> dict:
        """Raises: BatchError without an answer, or with one that is not ComfyUI's."""
        try:
            return json.loads(self.request(path))
        except (urllib.error.HTTPError, ValueError) as problem:
            raise BatchError(f"{self.url}{path} answers {problem}: is it ComfyUI 0.33 or newer?") from None

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


class Progress(threading.Thread):
    """Keeps the newest progress that the server's websocket tells; without a websocket there is none, and polling goes on."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.newest = server, {}

    def run(self) -> None:
        target = urllib.parse.urlsplit(self.server.url)
        is_secure = target.scheme == "https"
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET {target.path}/ws?clientId={self.server.client_id} HTTP/1.1\r\nHost: {target.netloc}\r\nUpgrade: websocket\r\n"
        head += f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        with contextlib.suppress(OSError, ValueError):
            connection = socket.create_connection((target.hostname, target.port or (443 if is_secure else 80)))
            if is_secure:
                connection = ssl.create_default_context().wrap_socket(connection, server_hostname=target.hostname)
            connection.sendall(head.encode())
            stream = connection.makefile("rb")
            if b" 101 " not in stream.readline():
                return
            while stream.readline().strip():
                pass
            # ComfyUI neither masks nor splits its frames.
            while len(start := stream.read(2)) == 2:
                size = start[1] & 127
                if size >= 126:
                    size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
                payload = stream.read(size)
                message = json.loads(payload) if start[0] & 15 == 1 else {}
                if message.get("type") == "progress_state":
                    self.newest = message["data"]


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
    except OSError as problem:
        print(f"{options.out} cannot be written ({problem}): make room there, or name another folder with --out.", file=sys.stderr)
        return 2
    finished = sum(entry.state == "done" for entry in entries)
    print(f"{finished} of {len(entries)} entries are done; see {options.out / 'results.json'}")
    return 0 if finished == len(entries) else 1


def run(server: Server, graph: dict, entries: list[Entry], out: Path) -> None:
    """Queues all entries, follows them to their ends, and keeps `out/results.json` up to date meanwhile.

    Raises: BatchError where the server answers no more, or on Ctrl-C; what is unfinished then says so in `out/results.json`.
    """
    graphs = {entry.name: fill(graph, entry) for entry in entries}
    server.patience = PATIENCE_SECONDS
    try:
        _queue(server, graphs, entries, out)
        _write_results(entries, out)
        _follow(server, Follower(server, graphs), entries, out)
    except (BatchError, KeyboardInterrupt) as end:
        problem = str(end) or "Stopped by Ctrl-C; the server goes on, and running the same list again collects what it has finished."
        for entry in entries:
            entry.error = problem if entry.state in ("waiting", "queued") else entry.error
        raise BatchError(problem) from end
    finally:
        _write_results(entries, out)


class Follower:
    """Prints how far the running entry is, from the websocket where there is one."""

    def __init__(self, server: Server, graphs: dict[str, dict]) -> None:
        self.graphs, self.last = graphs, ""
        self.is_terminal = sys.stdout.isatty()
        self.progress = Progress(server)
        self.progress.start()

    def show(self, entries: list[Entry]) -> None:
        """Waits a moment, and shows the newest progress where it is one of the entries'."""
        time.sleep(POLL_SECONDS)
        progress = self.progress.newest
        running = [(key, node) for key, node in progress.get("nodes", {}).items() if node.get("state") == "running"]
        for entry in entries:
            if running and entry.prompt_id == progress["prompt_id"]:
                key, node = running[-1]
                self.say(f"{entry.name}: {_title(self.graphs[entry.name], key)} {node['value']:.0f}/{node['max']:.0f}")

    def say(self, text: str, ends: bool = False) -> None:
        if self.is_terminal:
            print(f"\r\x1b[K{text}", end="\n" if ends else "", flush=True)
        elif ends or text.split(" ")[:-1] != self.last.split(" ")[:-1]:
            # In a log, a node says once that it runs.
            print(text, flush=True)
        self.last = text


def read_graph(path: Path) -> dict[str, dict]:
    graph = _read_json(path)
    if not isinstance(graph, dict) or not all(map(_is_node, graph.values())):
        raise BatchError(f"{path} is not in API format: export it with 'Export (API)' from the menu of ComfyUI.")
    for role, kinds in FOLDERS.items():
        if not any(_nodes(graph, kind) for kind in kinds):
            raise BatchError(f"{path} has no {' or '.join(kinds)} to give the {role} folder to: start from workflows/api/5_batch.json.")
    if not _nodes(graph, PROMPT_CLASS, PROMPT_TITLE):
        raise BatchError(f"{path} has no {PROMPT_CLASS} titled '{PROMPT_TITLE}': give the node with the prompt that title.")
    return graph


def _is_node(node: object) -> bool:
    if not isinstance(node, dict) or not {"class_type", "inputs"} <= set(node):
        return False
    return all(isinstance(node.get(name, kind()), kind) for name, kind in {"class_type": str, "inputs": dict, "_meta": dict}.items())


def read_list(path: Path) -> list[Entry]:
    is_json = path.suffix.lower() == ".json"
    rows = _json_rows(path) if is_json else _csv_rows(path)
    if not rows:
        raise BatchError(f"{path} holds no entries: give at least one with {', '.join(COLUMNS)}.")
    entries: list[Entry] = []
    for number, row in enumerate(rows, start=1):
        values = {column: (row.get(column) or "").strip() for column in (*COLUMNS, "name")}
        missing = [column for column in COLUMNS if not values[column]]
        if missing:
            raise BatchError(f"{path}, entry {number}: {', '.join(missing)} is missing.")
        if any(character in "\0\ufffd" for value in values.values() for character in value):
            raise BatchError(f"{path}, entry {number} holds characters that are none: save the file as UTF-8.")
        label = values.pop("name") or f"{values['identity']} {values['motion']}"
        # The run is named without the number, so that entries of one pair train it once, wherever they stand in the list.
        run = re.sub(r"[^\w .-]+", "-", label).strip(" .-").replace("..", ".")[:76] or "pair"
        entries.append(Entry(f"{number:03} {run}", run, **values))
    return entries


def _json_rows(path: Path) -> list[dict[str, str]]:
    rows = _read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BatchError(f"{path} holds no list of objects: give one object with {', '.join(COLUMNS)} for each entry.")
    for number, row in enumerate(rows, start=1):
        _check_columns(f"{path}, entry {number}", list(row), is_table=False)
        odd = next((column for column, value in row.items() if value is not None and not isinstance(value, str)), None)
        if odd is not None:
            raise BatchError(f"{path}, entry {number}: {odd} is {json.dumps(row[odd])[:40]}, and takes a text in quotes.")
    return rows


def _csv_rows(path: Path) -> list[dict[str, str]]:
    text = _read_text(path, "CSV")
    first, _, rest = text.partition("\n")
    wanted = re.fullmatch(r"sep=(.)\s*", first)  # what Excel writes for itself
    text = rest if wanted else text
    # Spreadsheets write what the country uses: semicolons where the comma is the decimal point.
    signs = [wanted[1]] if wanted else SEPARATORS
    sign = max(signs, key=lambda sign: len(KNOWN & set(_header(text, sign))))
    rows: list[dict[str, str]] = []
    columns: list[str] | None = None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, skipinitialspace=True, strict=True)
    try:
        for fields in reader:
            if not any(field.strip() for field in fields):  # a line of separators alone too
                continue
            if columns is None:
                columns = _without_empty_end([field.strip().casefold() for field in fields])
                _check_columns(str(path), columns, is_table=True)
                continue
            fields = _without_empty_end(fields)
            if len(fields) > len(columns):
                raise BatchError(
                    f"{path}, line {reader.line_num} has {len(fields)} fields, and there are {len(columns)} columns: put a text that holds "
                    f"{sign!r} in double quotes."
                )
            rows.append(dict(zip(columns, fields, strict=False)))
    except csv.Error as problem:
        raise BatchError(
            f"{path} cannot be read as CSV (line {reader.line_num}: {problem}): begin and end a text with double quotes, and write those "
            "within it twice."
        ) from problem
    return rows


def _header(text: str, sign: str) -> list[str]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    return [field.strip(' "').casefold() for field in first.split(sign)]


def _check_columns(where: str, columns: list[str], is_table: bool) -> None:
    """Raises: BatchError where a column is missing, unknown, or there twice."""
    missing = [column for column in COLUMNS if column not in columns]
    unknown = [column for column in columns if column not in KNOWN]
    twice = [column for column in KNOWN if columns.count(column) > 1]
    if is_table and missing:
        advice = f"begin the file with a line such as {','.join(COLUMNS)}"
        raise BatchError(f"{where} has no column {', '.join(missing)} (its first line says {', '.join(columns)[:100]}): {advice}.")
    if unknown or twice:
        what = f"an unknown {unknown[0][:40]!r}" if unknown else f"{twice[0]!r} twice"
        raise BatchError(f"{where} has {what}: give {', '.join(COLUMNS)}, and if you like name.")


def _without_empty_end(fields: list[str]) -> list[str]:
    """Fields up to the last that is not blank."""
    return fields[: max((place for place, field in enumerate(fields, start=1) if field.strip()), default=0)]


def fill(graph: dict, entry: Entry) -> dict:
    """The graph with an entry's folders, prompt and names."""
    graph = copy.deepcopy(graph)
    for role, kinds in FOLDERS.items():
        for node in (node for kind in kinds for node in _nodes(graph, kind)):
            node["inputs"]["folder"] = getattr(entry, role)
    for node in _nodes(graph, PROMPT_CLASS, PROMPT_TITLE):
        node["inputs"]["text"] = entry.prompt
    for node in _nodes(graph, TRAINER):
        node["inputs"]["name"] = entry.run
    for node in graph.values():
        prefix = node.get("inputs", {}).get("filename_prefix")
        if isinstance(prefix, str):
            node["inputs"]["filename_prefix"] = f"{prefix}/{entry.name}"
    return graph


def _queue(server: Server, graphs: dict[str, dict], entries: list[Entry], out: Path) -> None:
    """Queues what the server does not still have from a client that ended early."""
    earlier = _read_json(out / "results.json") if (out / "results.json").exists() else []
    if not isinstance(earlier, list) or not all(isinstance(row, dict) for row in earlier):
        raise BatchError(f"{out / 'results.json'} is damaged: remove it, or name another folder with --out.")
    left = {row.get("graph_sha256"): row.get("prompt_id") for row in earlier if row.get("state") == "queued"}
    for entry in entries:
        entry.graph_sha256 = hashlib.sha256(json.dumps(graphs[entry.name], sort_keys=True).encode()).hexdigest()
        if entry.graph_sha256 in left:
            entry.state, entry.prompt_id = "queued", left[entry.graph_sha256]
    waiting = server.waiting()
    for entry in entries:
        if entry.state == "queued":
            record = server.get(f"/history/{entry.prompt_id}").get(entry.prompt_id)
            if record["status"]["status_str"] == "success" if record else entry.prompt_id in waiting:
                continue
        try:
            entry.prompt_id, entry.state = server.queue(graphs[entry.name]), "queued"
        except BatchError as refusal:
            entry.fail(str(refusal))


def _follow(server: Server, follower: Follower, entries: list[Entry], out: Path) -> None:
    while open_entries := [entry for entry in entries if entry.state == "queued"]:
        follower.show(open_entries)
        # The queue is read before the histories: what is in neither was removed, not just finished.
        waiting = server.waiting()
        for entry in open_entries:
            history = server.get(f"/history/{entry.prompt_id}")
            if history:
                _finish(server, entry, history[entry.prompt_id], out)
                _write_results(entries, out)
                if entry.state == "done":
                    files = ", ".join(entry.files) or "without files"
                    follower.say(f"{entry.name}: done in {entry.seconds or 0:.0f} s, {files}", ends=True)
            elif entry.prompt_id not in waiting:
                entry.fail("The server has forgotten this job: it was removed from the queue, or the server was restarted. Queue it again.")


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
    try:
        for key, shown in record["outputs"].items():
            for item in (item for value in shown.values() if isinstance(value, list) for item in value):
                if isinstance(item, dict) and item.get("type") == "output" and "filename" in item:
                    entry.files.append(_download(server, item, entry, out))
                elif isinstance(item, str):
                    entry.texts[_title(record["prompt"][2], key)] = item
        entry.state = "done"
    except BatchError as problem:
        entry.fail(str(problem))


def _download(server: Server, item: dict, entry: Entry, out: Path) -> str:
    query = urllib.parse.urlencode({key: item.get(key, "") for key in ("filename", "subfolder", "type")})
    saved = Path(item["filename"])
    others = (f"{entry.name} {saved.stem}{f' {number}' * (number > 1)}{saved.suffix}" for number in itertools.count(1))
    name = next(name for name in itertools.chain([f"{entry.name}{saved.suffix}"], others) if name not in entry.files)
    try:
        (out / name).write_bytes(server.request(f"/view?{query}"))
    except OSError as problem:
        raise BatchError(f"{item['filename']} cannot be collected ({problem}): look for it in the server's output folder.") from problem
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
        return json.loads(_read_text(path, "JSON"))
    except (ValueError, RecursionError) as problem:
        raise BatchError(f"{path} cannot be read as JSON ({problem}): check the path and the file.") from problem


def _read_text(path: Path, form: str) -> str:
    """The text of a file in UTF-8 or, with a byte order mark as Excel writes it, UTF-16."""
    try:
        content = path.read_bytes()
        encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
        text = content.decode(encoding)
    except (OSError, UnicodeDecodeError) as problem:
        advice = "save it as 'CSV UTF-8'" if isinstance(problem, UnicodeDecodeError) and form == "CSV" else "check the path and the file"
        raise BatchError(f"{path} cannot be read as {form} ({problem}): {advice}.") from problem
    if "\0" in text:  # UTF-16 without its mark
        raise BatchError(f"{path} is neither UTF-8 nor UTF-16 text: save it as UTF-8.")
    return text


if __name__ == "__main__":
    sys.exit(main())
