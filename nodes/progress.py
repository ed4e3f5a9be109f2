"""What a node shows while it works: its bar, the time left, a picture. Every step is also a place where the user's stop is heard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import comfy.model_management
from comfy.utils import ProgressBar
from comfy_api.latest import ui
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer
from torch import nn

TEXT_INTERVAL = 1.0
PICTURE_SIZE = 768


class Progress:
    """Counts the steps of one node of the graph.

    Args:
        total: steps; some of them may be left out, see `reach`.
        doing: begins the text, as in "Encoding clips".
    """

    def __init__(self, node_id: str, total: int, doing: str) -> None:
        self.node_id, self.total, self.doing = node_id, total, doing
        self.done = 0
        self.bar = ProgressBar(total, node_id=node_id)
        self.begun = time.monotonic()
        self.last_text = self.begun

    def advance(self, steps: int = 1, picture: Image.Image | None = None) -> None:
        """Counts steps, and shows the time left once a second."""
        self.reach(self.done + steps, picture)

    def reach(self, done: int, picture: Image.Image | None = None) -> None:
        """As `advance`, to that step of all."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.done = min(done, self.total)
        self.bar.update_absolute(self.done, self.total, ("JPEG", picture, PICTURE_SIZE) if picture else None)
        now = time.monotonic()
        if now - self.last_text > TEXT_INTERVAL and self.done:
            self.last_text = now
            left = (now - self.begun) / self.done * (self.total - self.done)
            self.say(f"{self.doing}: {self.done} of {self.total}, {duration(left)} left.")

    def say(self, text: str) -> None:
        """Shows a text on the node until the next one."""
        _send(text, self.node_id)


@contextmanager
def interruptible(model: nn.Module | None) -> Iterator[None]:
    """Within it the user's stop is heard at every layer of a model, and not only when its call has ended."""

    def listen(*_: object) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    with ExitStack() as stack:
        for module in model.modules() if isinstance(model, nn.Module) else ():
            stack.callback(module.register_forward_pre_hook(listen).remove)
        yield


def told(text: str) -> ui.PreviewText:
    """The text a node ends with. The page shows the texts of few nodes once they are done, and those of nodes at work of all."""
    context = get_executing_context()
    if context is not None:
        _send(text, context.node_id)
    return ui.PreviewText(text)


def duration(seconds: float) -> str:
    """In the unit that a person would say it in."""
    minutes = round(seconds / 60)
    return f"{round(seconds)} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _send(text: str, node_id: str) -> None:
    """To the page, where a server runs: nodes may be called from a script without one."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_progress_text(text, node_id)
