"""One private ComfyUI server, driven as its users' scripts drive it: HTTP and websocket only."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from comfy_host import ComfyHost
from comfy_run import PromptRejected, Run, RunFailed
from event_socket import Event, EventSocket

MAIN_ON_OTHER_DEVICE = Path(__file__).parent / "main_on_other_device.py"
START_TIMEOUT = 400.0
RUN_TIMEOUT = 600.0
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CACHE_LINE = re.compile(r"Using .* cache")
IMPORT_LINE = re.compile(r"^(?:\[\w+\])?\s*([0-9.]+) seconds( \(IMPORT FAILED\))?: (.*)$", re.MULTILINE)


class ComfyServer:
    """Starts on entry, stops on exit. All it writes lies in `base`: server.log, input, output, user, models.

    Args:
        packs: folder names under custom_nodes, and the source tree that is linked there.
        device: first arguments of `main_on_other_device`; none: the host computes on the CPU.
    """

    def __init__(
        self,
        host: ComfyHost,
        base: Path,
        packs: dict[str, Path],
        bytecode: Path,
        args: tuple[str, ...] = (),
        device: tuple[str, ...] = (),
    ) -> None:
        self.host, self.base, self.packs, self.bytecode, self.args = host, base, packs, bytecode, args
        self.main = [str(MAIN_ON_OTHER_DEVICE), *device] if device else ["main.py", "--cpu"]
        self.log_path = base / "server.log"
        self.client_id = uuid.uuid4().hex
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: EventSocket | None = None

    def __enter__(self) -> ComfyServer:
        for folder in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for name, source in self.packs.items():
            (self.base / "custom_nodes" / name).symlink_to(source, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [str(self.host.python), *self.main, "--listen", "127.0.0.1", "--port", str(port)]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-api-nodes", "--disable-auto-launch", *self.args]
        # The checkout stays as it is: bytecode goes elsewhere.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(self.bytecode), "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        # Beside a browser that draws in software, threads that wait for each other take four times as long as one.
        environment.setdefault("OMP_NUM_THREADS", "1")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.host.path, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            self._wait_until_up()
            self.socket = EventSocket(f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self.client_id}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.socket:
            self.socket.close()
        if self.process and self.is_alive():
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _wait_until_up(self) -> None:
        until = time.monotonic() + START_TIMEOUT
        while self.is_alive():
            try:
                self.get("/system_stats")
                return
            except OSError:
                if time.monotonic() > until:
                    raise TimeoutError(f"ComfyUI did not answer within {START_TIMEOUT:.0f} s:\n{self.log_tail()}") from None
                time.sleep(0.3)
        raise RuntimeError(f"ComfyUI ended while starting:\n{self.log_tail()}")

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        return COLOUR.sub("", self.log_path.read_text(errors="replace"))

    def log_tail(self, start: int = 0, size: int = 6000) -> str:
        return self.log()[start:][-size:]

    def import_times(self) -> dict[str, tuple[float, bool]]:
        """Custom node folder name to (seconds, whether its import failed), as the server printed them."""
        return {Path(folder).name: (float(seconds), bool(failed)) for seconds, failed, folder in IMPORT_LINE.findall(self.log())}

    def request(self, path: str, body: dict | None = None, timeout: float = 60.0) -> bytes:
        request = urllib.request.Request(self.url + path)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read()

    def get(self, path: str) -> dict | list:
        return json.loads(self.request(path))

    def post(self, path: str, body: dict | None = None) -> bytes:
        return self.request(path, body or {})

    def object_info(self) -> dict[str, dict]:
        return self.get("/object_info")

    def interrupt(self) -> None:
        self.post("/interrupt")

    def free(self) -> None:
        """Unload every model and forget every cached output."""
        num_resets = len(CACHE_LINE.findall(self.log()))
        self.post("/free", {"unload_models": True, "free_memory": True})
        # The answer comes before the deed; a prompt queued meanwhile would still find the cache. The log tells.
        until = time.monotonic() + 30
        while len(CACHE_LINE.findall(self.log())) == num_resets and time.monotonic() < until:
            time.sleep(0.05)

    def queue_length(self) -> int:
        """Prompts running and waiting."""
        queue = self.get("/queue")
        return len(queue["queue_running"]) + len(queue["queue_pending"])

    def fetch(self, file: dict) -> bytes:
        """The bytes of a saved file, as `Run.files` lists them."""
        return self.request("/view?" + urllib.parse.urlencode({key: file.get(key, "") for key in ("filename", "subfolder", "type")}))

    def tensors(self, run: Run, node_id: str = "save") -> dict[str, torch.Tensor]:
        """What a BenchSave node kept: the path of each tensor in the saved value ("0.samples") to the tensor."""
        (file,) = run.files(node_id)
        return safetensors.torch.load(self.fetch(file))

    def put(self, source: Path, name: str) -> str:
        """Put a file or folder among the server's inputs; returns `name`."""
        target = self.base / "input" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
        return name

    def queue(self, graph: dict[str, dict]) -> str:
        """Queue a graph in API format; returns the prompt id."""
        try:
            return json.loads(self.post("/prompt", {"prompt": graph, "client_id": self.client_id}))["prompt_id"]
        except urllib.error.HTTPError as refused:
            if refused.code != 400:
                raise
            raise PromptRejected(json.loads(refused.read())) from None

    def wait_for(self, prompt_id: str, is_wanted: Callable[[Event], bool], timeout: float = RUN_TIMEOUT) -> Event:
        """The first event of a prompt that is wanted; raises when the run ends without it.

        To interrupt a run at its third step: wait_for(id, lambda e: e.type == "progress_state" and ...), then interrupt().
        """
        until = time.monotonic() + timeout
        with self.socket.changed:
            while time.monotonic() < until:
                events = self.socket.of_prompt(prompt_id)
                found = next((event for event in events if is_wanted(event)), None)
                if found:
                    return found
                if any(event.type in ENDINGS for event in events):
                    raise AssertionError(f"prompt {prompt_id} ended before what was waited for: {[e.type for e in events]}")
                if not self.is_alive():
                    raise RuntimeError(f"ComfyUI died:\n{self.log_tail()}")
                self.socket.changed.wait(0.5)
        raise TimeoutError(f"prompt {prompt_id} did not get there within {timeout:.0f} s:\n{self.log_tail()}")

    def wait_for_progress(self, prompt_id: str, node_id: str, value: float, timeout: float = RUN_TIMEOUT) -> None:
        """Wait until a node has reported at least `value`."""

        def has_reached(event: Event) -> bool:
            return event.type == "progress_state" and event.payload["nodes"].get(node_id, {}).get("value", 0) >= value

        self.wait_for(prompt_id, has_reached, timeout)

    def wait(self, prompt_id: str, timeout: float = RUN_TIMEOUT) -> Run:
        """Wait for the end of a prompt.

        Raises:
            RunFailed: it ended in an error or was interrupted.
        """
        began = time.monotonic()
        ended = self.wait_for(prompt_id, lambda event: event.type in ENDINGS, timeout)
        events = self.socket.of_prompt(prompt_id)
        if ended.type != "execution_success":
            raise RunFailed(ended.type, ended.payload, events)
        # The history is written just after the message.
        while not (history := self.get(f"/history/{prompt_id}")):
            time.sleep(0.05)
        previews = [preview for preview in self.socket.previews if events[0].at <= preview.at <= ended.at]
        return Run(prompt_id, history[prompt_id]["outputs"], events, previews, time.monotonic() - began)

    def run(self, graph: dict[str, dict], timeout: float = RUN_TIMEOUT) -> Run:
        """Queue a graph in API format and wait for its end.

        Raises:
            PromptRejected: the graph was refused.
            RunFailed: a node failed, or the run was interrupted.
        """
        return self.wait(self.queue(graph), timeout)
