"""Prompts that name neither side, shipped as text, with subject and action marked: what a gate is to leave alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("generic_prompts.txt")
_MARK = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Template:
    """A prompt in parts: `before` + subject + `between` + action + `after`, where the last two or three of them may be empty.

    Attributes:
        number: its place in the file; all that is made of one prompt is one wording.
    """

    number: int
    before: str
    subject: str = ""
    between: str = ""
    action: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        return self.before + self.subject + self.between + self.action + self.after

    @property
    def has_parts(self) -> bool:
        """Whether somebody does something in it."""
        return bool(self.action)

    @property
    def place(self) -> str:
        """What the prompt says behind subject and action, without the sign that parts them."""
        return self.after.strip(" ,.;")

    def with_parts(self, subject: str = "", action: str = "") -> str:
        """The prompt with another subject or action, where one is given."""
        return replace(self, subject=subject or self.subject, action=action or self.action).text


@cache
def generic_prompts() -> tuple[Template, ...]:
    """All prompts of the file, in its order."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return tuple(_template(number, line) for number, line in enumerate(line for line in lines if line and not line.startswith("#")))


def _template(number: int, line: str) -> Template:
    before, *parts = _MARK.split(line)
    if not parts:
        return Template(number, before)
    subject, between, action, after = parts if len(parts) == 4 else (*parts, "", "")[:4]
    return Template(number, before, subject, between, action, after)
