"""The batch client keeps what it can get: a lost file, a dropped connection, a server that is gone, Ctrl-C, and what runs on."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import pytest

API = Path(__file__).resolve().parents[2] / "workflows" / "api"


class FakeComfy(ThreadingHTTPServer):
    """Runs every job at once; `script` is called with the path of each GET and may answer in its place."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.graphs: dict[str, dict] = {}
        self.unfinished: set[str] = set()
        self.gets: list[str] = []
        self.script: Callable[[Answers, str], bool] = lambda answers, path: False

    def handle_error(self, *ignored: object) -> None:
        pass


class Answers(BaseHTTPRequestHandler):
    server: FakeComfy

    def log_message(self, *ignored: object) -> None:
        pass

    def say(self, content: dict | bytes, code: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def do_POST(self) -> None:
        graph = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        job = f"job{len(self.server.graphs) + 1}"
        self.server.graphs[job] = graph
        self.say({"prompt_id": job})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.gets.append(path)
        if self.server.script(self, path):
            return
        if path == "/system_stats":
            self.say({})
        elif path == "/queue":
            self.say({"queue_running": [], "queue_pending": [[number, job] for number, job in enumerate(sorted(self.server.unfinished))]})
        elif path == "/view":
            self.say(parse_qs(urlsplit(self.path).query)["filename"][0].encode())
        elif path.startswith("/history/"):
            job = path.split("/")[-1]
            done = job in self.server.graphs and job not in self.server.unfinished
            self.say({job: record(job, self.server.graphs[job])} if done else {})
        else:
            self.say(b"", 404)


def record(job: str, graph: dict) -> dict:
    messages = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3000}]]
    saved = {"filename": f"{job}.mp4", "subfolder": "", "type": "output"}
    status = {"status_str": "success", "completed": True, "messages": messages}
    return {"prompt": [0, job, graph, {}, []], "status": status, "outputs": {"9": {"images": [saved]}}}


@pytest.fixture
def comfy() -> Iterator[FakeComfy]:
    with FakeComfy() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("batch_client_in_trouble", API / "batch.py")
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    short = {"POLL_SECONDS": 0.02, "RETRY_SECONDS": 0.02, "PATIENCE_SECONDS": 0.5, "ANSWER_SECONDS": 0.2}
    for name, seconds in short.items():
        monkeypatch.setattr(module, name, seconds, raising=False)
    return module


@pytest.fixture
def queue(batch: ModuleType, comfy: FakeComfy, tmp_path: Path) -> Callable[[], int]:
    jobs = [{"identity": who, "motion": "dance", "prompt": f"{who} dances"} for who in ("ada", "bo", "cy")]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    arguments = [API / "5_batch.json", tmp_path / "jobs.json", "--server", comfy.url, "--out", tmp_path]

    def run() -> int:
        try:
            return batch.main([str(argument) for argument in arguments])
        except KeyboardInterrupt:
            pytest.fail("Ctrl-C ended the client before it could say anything")

    return run


def results(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def states(out: Path) -> list[str]:
    return [entry["state"] for entry in results(out)]


def once_queued(comfy: FakeComfy, start: str, answer: Callable[[Answers], None]) -> None:
    """When all jobs are queued, the next GET of such a path is answered so, later ones as usual."""
    pending = [answer]

    def script(answers: Answers, path: str) -> bool:
        if len(comfy.graphs) < 3 or not path.startswith(start) or not pending:
            return False
        pending.pop()(answers)
        return True

    comfy.script = script


def test_a_file_the_server_lost_fails_its_entry_and_the_others_go_on(queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path) -> None:
    def lose(answers: Answers, path: str) -> bool:
        is_lost = path == "/view" and "job1" in answers.path
        if is_lost:
            answers.say(b"gone", 404)
        return is_lost

    comfy.script = lose
    assert queue() == 1
    assert states(tmp_path) == ["failed", "done", "done"]
    assert results(tmp_path)[0]["error"].startswith("job1.mp4 cannot be collected (HTTP Error 404: Not Found)")
    assert (tmp_path / "002 bo dance.mp4").read_bytes() == b"job2.mp4"


def test_a_file_that_cannot_be_written_fails_its_entry(queue: Callable[[], int], tmp_path: Path) -> None:
    (tmp_path / "002 bo dance.mp4").mkdir()
    assert queue() == 1
    assert states(tmp_path) == ["done", "failed", "done"]
    assert "job2.mp4 cannot be collected" in results(tmp_path)[1]["error"]


@pytest.mark.parametrize("start", ["/queue", "/history", "/view"])
def test_a_dropped_connection_is_asked_again(queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path, start: str) -> None:
    once_queued(comfy, start, lambda answers: None)
    assert queue() == 0
    assert states(tmp_path) == ["done"] * 3
    assert len(comfy.graphs) == 3, "a job was queued twice"


@pytest.mark.parametrize("code", [None, 502], ids=["slow", "a proxy's 502"])
def test_a_busy_server_is_asked_again(queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path, code: int | None) -> None:
    once_queued(comfy, "/queue", lambda answers: answers.say(b"busy", code) if code else time.sleep(0.4))
    assert queue() == 0
    assert states(tmp_path) == ["done"] * 3


def test_a_server_gone_for_good_ends_the_client_with_what_it_has(
    queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comfy.script = lambda answers, path: (tmp_path / "001 ada dance.mp4").exists()
    started = time.monotonic()
    assert queue() == 2
    assert time.monotonic() - started > 0.5, "it gave up at once"
    assert states(tmp_path) == ["done", "queued", "queued"]
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"{comfy.url} has stopped answering")
    assert [entry["error"] for entry in results(tmp_path)] == [None, sentence, sentence]


def test_ctrl_c_leaves_the_results_so_far(
    batch: ModuleType, queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object, entries: list) -> None:
        if len(entries) < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(batch.Follower, "show", interrupt)
    comfy.unfinished = {"job2"}
    assert queue() == 2
    assert states(tmp_path) == ["done", "queued", "done"]
    assert "running the same list again" in results(tmp_path)[1]["error"]


def test_the_same_list_again_collects_what_the_server_finished_meanwhile(
    batch: ModuleType, queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comfy.unfinished = {"job1", "job2", "job3"}
    with monkeypatch.context() as patch:
        patch.setattr(batch.Follower, "show", lambda self, entries: (_ for _ in ()).throw(KeyboardInterrupt))
        assert queue() == 2
    assert states(tmp_path) == ["queued"] * 3
    # The first finished, the second still waits and finishes later, the third was lost.
    comfy.unfinished = {"job2"}
    del comfy.graphs["job3"]
    comfy.graphs["another client's"] = {}

    def finish_later(answers: Answers, path: str) -> bool:
        if (tmp_path / "001 ada dance.mp4").exists():
            comfy.unfinished.clear()
        return False

    comfy.script = finish_later
    assert queue() == 0
    assert [entry["prompt_id"] for entry in results(tmp_path)] == ["job1", "job2", "job4"]
    assert states(tmp_path) == ["done"] * 3 and [entry["error"] for entry in results(tmp_path)] == [None] * 3


def test_another_prompt_is_queued_though_its_entry_bears_the_same_name(queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path) -> None:
    assert queue() == 0
    left = results(tmp_path)
    for entry in left:
        entry["state"] = "queued"
    (tmp_path / "results.json").write_text(json.dumps(left), encoding="utf-8")
    jobs = (tmp_path / "jobs.json").read_text(encoding="utf-8")
    (tmp_path / "jobs.json").write_text(jobs.replace("bo dances", "bo dances at night"), encoding="utf-8")
    assert queue() == 0
    assert [entry["prompt_id"] for entry in results(tmp_path)] == ["job1", "job4", "job3"]


def test_a_refused_graph_says_why_though_the_server_answers_500(
    queue: Callable[[], int], comfy: FakeComfy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "do_POST", lambda answers: answers.say(b"500 Internal Server Error", 500))
    assert queue() == 1
    assert {entry["error"] for entry in results(tmp_path)} == {"The server refused the graph: 500 Internal Server Error"}


@pytest.mark.parametrize("padding", [0, 300, 70000], ids=["short frame", "16-bit length", "64-bit length"])
def test_progress_from_the_websocket_is_shown(
    queue: Callable[[], int], comfy: FakeComfy, capsys: pytest.CaptureFixture[str], padding: int
) -> None:
    trainer = next(
        key for key, node in json.loads((API / "5_batch.json").read_text()).items() if node["class_type"].endswith("JointTrainer")
    )
    comfy.unfinished = {"job2"}

    def tell(answers: Answers, path: str) -> bool:
        if path != "/ws":
            return False
        nodes = {trainer: {"state": "running", "value": 3, "max": 8, "note": "x" * padding}}
        payload = json.dumps({"type": "progress_state", "data": {"prompt_id": "job2", "nodes": nodes}}, separators=(",", ":")).encode()
        size = len(payload)
        assert (size < 126) == (padding == 0)
        length = bytes([size]) if size < 126 else struct.pack(">BH", 126, size) if size < 65536 else struct.pack(">BQ", 127, size)
        answers.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n" + b"\x82\x02ab" + b"\x81" + length + payload)
        time.sleep(0.3)
        comfy.unfinished.clear()
        return True

    comfy.script = tell
    assert queue() == 0
    assert "002 bo dance: Joint Trainer 3/8" in capsys.readouterr().out


ROW = ("dogs/rex", "dance", "a photo of sks dog dancing")
PLAIN = "identity,motion,prompt\ndogs/rex,dance,a photo of sks dog dancing\n"
QUOTED = "".join(", ".join(f'"{field}"' for field in line.split(",")) + "\n" for line in PLAIN.splitlines())
SAME_LISTS = {
    "plain": PLAIN.encode(),
    "spaces": PLAIN.replace(",", ", ").encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "spaces and semicolons": PLAIN.replace(",", " ; ").encode(),
    "mark of UTF-8": PLAIN.encode("utf-8-sig"),
    "mark of UTF-8 and quotes": QUOTED.encode("utf-8-sig"),
    "UTF-16 of Excel": PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "big-endian": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "Windows": PLAIN.replace("\n", "\r\n").encode(),
    "old Mac": PLAIN.replace("\n", "\r").encode(),
    "no end": PLAIN.strip().encode(),
    "empty lines": PLAIN.replace("\n", "\n\n  \n").encode(),
    "lines of separators": f"{PLAIN.replace(',', ';')};;\n;;;\n".encode(),
    "empty columns": PLAIN.replace("\n", ",,\n").encode(),
    "capitals": PLAIN.replace("identity,motion", "Identity,MOTION").encode(),
    "another order": b"prompt,identity,motion\na photo of sks dog dancing,dogs/rex,dance\n",
    "Excel's own first line": b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
}


def read(batch: ModuleType, folder: Path, content: bytes, name: str = "list.csv") -> list[tuple[str, str, str]]:
    (folder / name).write_bytes(content)
    return [(entry.identity, entry.motion, entry.prompt) for entry in batch.read_list(folder / name)]


@pytest.mark.parametrize("form", SAME_LISTS)
def test_a_list_reads_the_same_however_a_program_wrote_it(batch: ModuleType, tmp_path: Path, form: str) -> None:
    assert read(batch, tmp_path, SAME_LISTS[form]) == [ROW]


@pytest.mark.parametrize("prompt", ["a dog, running", 'a "good" dog; asleep', "two\nlines", "a dog\u2028on a beach", "Übermut, 犬"])
@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_quoted_prompts_may_hold_anything(batch: ModuleType, tmp_path: Path, prompt: str, sign: str) -> None:
    quoted = '"' + prompt.replace('"', '""') + '"'
    rows = (batch.COLUMNS, ("rex", "dance", quoted), ("tom", "jump", "x"))
    text = "".join(sign.join(fields) + "\r\n" for fields in rows)
    assert read(batch, tmp_path, text.encode()) == [("rex", "dance", prompt), ("tom", "jump", "x")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_lists_may_begin_with_a_mark(batch: ModuleType, tmp_path: Path, encoding: str) -> None:
    rows = [dict(zip(batch.COLUMNS, ROW, strict=True))]
    assert read(batch, tmp_path, json.dumps(rows).encode(encoding), "list.json") == [ROW]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.csv", b"identity,motion,prompt\nrex,dance,a dog, running\n", r"line 2 has 4 fields, and there are 3 columns.*double quotes"),
        ("list.csv", b'identity,motion,prompt\nrex,dance,"a dog\ntom,jump,a cat\n', r"line 3.*double quotes"),
        ("list.csv", b"identity,motion,promt\nrex,dance,a dog\n", r"no column prompt \(its first line says identity, motion, promt\)"),
        ("list.csv", b"rex,dance,a dog\n", r"no column identity, motion, prompt"),
        ("list.csv", b"identity,motion,prompt,seed\nrex,dance,a dog,3\n", r"an unknown 'seed'"),
        ("list.csv", b"identity,motion,prompt,prompt\nrex,dance,a dog,a cat\n", r"'prompt' twice"),
        ("list.csv", b"identity,motion,prompt\nrex,,a dog\n", r"entry 1: motion is missing"),
        ("list.csv", b"identity,motion,prompt\n;;\n", r"entry 1: motion, prompt is missing"),
        ("list.csv", b"identity,motion,prompt\n,,\n", r"holds no entries"),
        ("list.csv", "identity,motion,prompt\nrex,dance,Übermut\n".encode("cp1252"), r"save it as 'CSV UTF-8'"),
        ("list.csv", PLAIN.encode("utf-16-le"), r"save it as UTF-8"),
        ("list.json", b'[{"identity": "rex", "motion": "dance", "prompt": 5}]', r"entry 1: prompt is 5, and takes a text"),
        ("list.json", b'[{"identity": "rex", "motion": "dance", "promt": "a dog"}]', r"entry 1 has an unknown 'promt'"),
        ("list.json", b'{"identity": "rex"}', r"holds no list of objects"),
        ("list.json", b"[" * 100_000, r"cannot be read as JSON"),
    ],
)
def test_what_is_wrong_in_a_list_is_named(batch: ModuleType, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(batch.BatchError, match=rf"{name}.*{message}"):
        read(batch, tmp_path, content, name)


def test_the_list_of_the_example_is_read(batch: ModuleType, tmp_path: Path) -> None:
    example = batch.EXAMPLE.partition("\n\n")[2].partition("\n\n")[0]
    assert len(read(batch, tmp_path, "".join(f"{line.strip()}\n" for line in example.splitlines()).encode())) == 2


def test_rows_of_one_name_keep_files_apart(batch: ModuleType, comfy: FakeComfy, tmp_path: Path) -> None:
    """Two rows that are called the same, and three saved files of one name in each."""
    jobs = [{"identity": "rex", "motion": "dance", "prompt": prompt, "name": "rex"} for prompt in ("a", "b")]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")

    def answer(answers: Answers, path: str) -> bool:
        if not path.startswith("/history/"):
            return False
        job = path.split("/")[-1]
        said = record(job, comfy.graphs[job])
        saved = [{"filename": "video.mp4", "subfolder": folder, "type": "output"} for folder in "abc"]
        answers.say({job: {**said, "outputs": {"9": {"images": saved}}}})
        return True

    comfy.script = answer
    arguments = [API / "5_batch.json", tmp_path / "jobs.json", "--server", comfy.url, "--out", tmp_path / "out"]
    assert batch.main([str(argument) for argument in arguments]) == 0
    files = [file for entry in results(tmp_path / "out") for file in entry["files"]]
    assert len(set(files)) == len(files) == 6 and all((tmp_path / "out" / file).exists() for file in files)


def test_our_own_folder_loaders_get_the_folders_too(batch: ModuleType, tmp_path: Path) -> None:
    text = (API / "5_batch.json").read_text(encoding="utf-8")
    text = text.replace("LoadImageTextDataSetFromFolder", "DualRealLoadPhotos")
    text = text.replace("LoadVideoTextDataSetFromFolder", "DualRealLoadClips")
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    (tmp_path / "list.csv").write_text("identity,motion,prompt\nrex,dance,a dog dances\n")
    (entry,) = batch.read_list(tmp_path / "list.csv")
    filled = batch.fill(batch.read_graph(tmp_path / "own.json"), entry)
    folders = {node["class_type"]: node["inputs"]["folder"] for node in filled.values() if "folder" in node["inputs"]}
    assert folders == {"DualRealLoadPhotos": "rex", "DualRealLoadClips": "dance"}
