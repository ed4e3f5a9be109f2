"""ComfyUI's page in a real Chromium, used as a person does: drop a file on the canvas, press Run, look."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Request, Response, Route

PAGE_TIMEOUT = 180.0
SETTLE_MS = 800  # the canvas draws a loaded graph over a few animation frames
MIME_TYPES = {".json": "application/json", ".png": "image/png", ".mp4": "video/mp4", ".webm": "video/webm", ".webp": "image/webp"}
# WebGL in software: machines that run tests have no display.
CHROMIUM_ARGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
# A page that comes out of a folder counts as one of the internet, which may not speak to this machine.
CHROMIUM_ARGS += ["--disable-features=LocalNetworkAccessChecks"]

VEIL = ".p-blockui-mask"
FADING_MESSAGE = ("uncaught: NotFoundError", "removeChild", "vendor-primevue")
"""PrimeVue's messages fade out of a page that has dropped them already, on a slow machine."""
IS_READY = "() => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"
INVENTORY = """() => {
  const nodes = []
  const collect = graph => { for (const node of graph.nodes) { nodes.push(node); if (node.subgraph) collect(node.subgraph) } }
  collect(window.app.graph)
  const isMissing = node => !node.subgraph && !window.LiteGraph.registered_node_types[node.type]
  return { count: nodes.length, missing: nodes.filter(isMissing).map(node => node.type) }
}"""
LISTEN_FOR_END = """() => {
  window.ended = null
  for (const type of ['execution_success', 'execution_error', 'execution_interrupted'])
    window.app.api.addEventListener(type, event => { window.ended = { type, detail: event.detail } })
}"""
END_OF_RUN = """() => {
  if (window.ended) return window.ended
  const refused = window.app.lastNodeErrors
  return refused && Object.keys(refused).length ? { type: 'rejected', detail: refused } : null
}"""
DROP = """([name, type, text]) => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
  const dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File([bytes], name, { type }))
  const canvas = document.querySelector('#graph-canvas')
  canvas.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true, clientX: 400, clientY: 300 }))
}"""
SHOW_ALL = """() => {
  const { ds, canvas } = window.app.canvas
  const nodes = window.app.graph.nodes
  const edge = (axis, side) => nodes.map(node => node.pos[axis] + side * node.size[axis])
  const [left, top] = [0, 1].map(axis => Math.min(...edge(axis, 0)))
  const [right, bottom] = [0, 1].map(axis => Math.max(...edge(axis, 1)))
  const [width, height] = [canvas.clientWidth, canvas.clientHeight]
  ds.scale = Math.min(1, 0.85 * width / (right - left), 0.8 * height / (bottom - top))
  ds.offset = [width / 2 / ds.scale - (left + right) / 2, height / 2 / ds.scale - (top + bottom) / 2]
  window.app.canvas.setDirty(true, true)
}"""


CLASSIC, NODES_2 = "classic canvas", "Nodes 2.0"
RENDERERS = (CLASSIC, NODES_2)


@contextmanager
def opened_page(url: str, renderer: str = CLASSIC, frontend: Path | None = None) -> Iterator[CanvasPage]:
    """The page of a server at this address, ready for use; playwright must be installed.

    frontend: static folder of another comfyui-frontend-package, which then takes the place of the server's own.
    """
    from playwright.sync_api import sync_playwright  # here, so that a machine without it skips and does not fail

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        page = CanvasPage(browser, url, renderer, frontend)
        page.open()
        yield page
        browser.close()


def find_chromium() -> str | None:
    named = os.environ.get("CHROMIUM_PATH")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def browser_absence_reason() -> str | None:
    """Why no page can be opened here; None when one can."""
    if importlib.util.find_spec("playwright") is None:
        return "no Playwright: pip install -e '.[test,canvas]'"
    if find_chromium() is None:
        return "no Chromium: install the distribution's package (apt-get install chromium) or set CHROMIUM_PATH"
    return None


class CanvasPage:
    """One page of one server. `problems` collects console errors, uncaught exceptions and failed requests as they happen."""

    def __init__(self, browser: Browser, url: str, renderer: str, frontend: Path | None) -> None:
        self.url, self.renderer, self.frontend = url, renderer, frontend
        self.problems: list[str] = []
        self.page = browser.new_page(viewport={"width": 1600, "height": 1000})
        self.page.set_default_timeout(PAGE_TIMEOUT * 1000)
        self.page.route("**/*", self._keep_local)
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error.stack or error}"))
        self.page.on("response", self._note_response)

    def open(self) -> None:
        """Load the page, without the first visit's tutorial over it or a panel beside it."""
        settings = {"TutorialCompleted": True, "RightSidePanel.IsOpen": False, "VueNodes.Enabled": self.renderer == NODES_2}
        for name, value in settings.items():
            self.page.request.post(f"{self.url}/api/settings/Comfy.{name}", data=json.dumps(value))
        self.page.goto(self.url, wait_until="domcontentloaded")
        self.page.wait_for_function(IS_READY)
        # The veil of the start takes every click until it has faded.
        self.page.locator(VEIL).first.wait_for(state="detached")
        self.page.evaluate(LISTEN_FOR_END)
        self.page.wait_for_timeout(SETTLE_MS)

    def drop(self, name: str, content: bytes) -> None:
        """Drop a workflow, or an image or video that carries one, on the emptied canvas, and wait for its nodes."""
        self.page.evaluate("() => window.app.graph.clear()")
        self.page.evaluate(DROP, [name, MIME_TYPES[Path(name).suffix], base64.b64encode(content).decode()])
        self.page.wait_for_function("() => window.app.graph.nodes.length > 0")
        self.page.wait_for_timeout(SETTLE_MS)
        self.page.evaluate(SHOW_ALL)
        self.page.wait_for_timeout(SETTLE_MS)

    def node_count(self) -> int:
        """Nodes in the graph, those inside subgraphs included."""
        return self.page.evaluate(INVENTORY)["count"]

    def missing_types(self) -> list[str]:
        return self.page.evaluate(INVENTORY)["missing"]

    def dialogs(self) -> list[str]:
        """Texts of the dialogs over the canvas: the page's way to speak of missing nodes and models."""
        return [dialog.inner_text() for dialog in self.page.locator("[role=dialog]").all() if dialog.is_visible()]

    def run(self, timeout: float) -> dict:
        """Press Run and wait. Returns {"type": execution_success | execution_error | rejected | ..., "detail": ...}."""
        self.page.evaluate("() => { window.ended = null }")
        self.page.get_by_role("button", name="Run", exact=True).first.click()
        ended = self.page.wait_for_function(END_OF_RUN, timeout=timeout * 1000).json_value()
        self.page.wait_for_timeout(SETTLE_MS)
        return ended

    def screenshot(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=file)

    def problems_of(self, pack: str) -> list[str]:
        """What went wrong in or because of the pack: its scripts, its node types, its files. The page has noise of its own."""
        counted = [problem for problem in self.problems if pack.lower() in problem.lower() or problem.startswith("uncaught")]
        return [problem for problem in counted if not all(word in problem for word in FADING_MESSAGE)]

    def close(self) -> None:
        self.page.close()

    def _keep_local(self, route: Route, request: Request) -> None:
        target = urlsplit(request.url)
        is_outside = target.scheme in ("http", "https") and target.netloc != urlsplit(self.url).netloc
        file = self.frontend and self.frontend / (target.path.lstrip("/") or "index.html")
        if is_outside:
            route.abort()
        elif file and file.is_file():
            route.fulfill(path=file)
        else:
            route.continue_()

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")
