"""The one error type whose message is meant for the person at the keyboard."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used. The message is one sentence: what is wrong, where, and the cure."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
