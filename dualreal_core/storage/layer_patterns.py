"""Patterns of layer names, as peft's configurations hold them: regular expressions of a stranger, matched in polynomial time.

A part of a pattern is the function from a place in the name to all places at which the part can end; each is worked out once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

LONGEST = 150
"""Characters of a pattern or name; real ones have up to 80."""
_PLAIN = re.compile(r"[\w.-]+")
_LETTER = re.compile(r"\\[dDwWsS]|\\[^a-zA-Z0-9]|\[\^?\]?[^\[\]\\]*\]|[^\\\[\](){}*+?|^$]")

Ends = Callable[[int], frozenset[int]]


def fits(pattern: str, name: str) -> bool:
    """Whether peft would apply a pattern to a layer: it matches the whole name, or what stands after one of its dots.

    Raises:
        ValueError: the pattern is too long, or holds more than letters, classes, groups, `|`, `*`, `+`, `?`, `^` and `$`.
    """
    if _PLAIN.fullmatch(pattern):  # by far the most, and there may be one for each layer
        begin = len(name) - len(pattern)
        is_apart = begin == 0 or (begin > 0 and name[begin - 1] == ".")
        return is_apart and all(wanted in (letter, ".") for wanted, letter in zip(pattern, name[begin:], strict=True))
    if max(len(pattern), len(name)) > LONGEST:
        raise ValueError(f"a pattern or name of more than {LONGEST} characters")
    parser = _Parser(pattern, name)
    try:
        ends = parser.alternatives()
    except re.error as error:
        raise ValueError(str(error)) from error
    if parser.place < len(pattern):
        raise ValueError(f"{pattern!r} cannot be read from its character {parser.place + 1} on")
    starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
    return any(len(name) in ends(start) for start in starts)


class _Parser:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str, name: str) -> None:
        self.pattern, self.name, self.place = pattern, name, 0

    def take(self, text: str) -> bool:
        """Whether this comes next; it is then behind us."""
        is_next = self.pattern.startswith(text, self.place)
        self.place += len(text) * is_next
        return is_next

    def alternatives(self) -> Ends:
        branches = [self.sequence()]
        while self.take("|"):
            branches.append(self.sequence())
        return cache(lambda start: frozenset().union(*(branch(start) for branch in branches)))

    def sequence(self) -> Ends:
        parts: list[Ends] = []
        while (part := self.atom()) is not None:
            parts.append(self.repeated(part))

        def ends(start: int) -> frozenset[int]:
            places = frozenset([start])
            for part in parts:
                places = frozenset().union(*(part(place) for place in places))
            return places

        return cache(ends)

    def atom(self) -> Ends | None:
        """None where none comes next: at the end, before a bar or closing bracket, and at what is not known."""
        if self.take("("):
            self.take("?:")
            inner = self.alternatives()
            if not self.take(")"):
                raise ValueError(f"{self.pattern!r} opens a bracket that nothing closes")
            return inner
        for mark, at in (("^", 0), ("$", len(self.name))):
            if self.take(mark):
                return lambda start, at=at: frozenset([start] if start == at else [])
        found = _LETTER.match(self.pattern, self.place)
        if found is None:
            return None
        self.place = found.end()
        letter = re.compile(found[0])
        return cache(lambda start: frozenset([start + 1] if letter.fullmatch(self.name, start, start + 1) else []))

    def repeated(self, part: Ends) -> Ends:
        """The part with the quantifier that follows it."""
        is_optional, is_many = self.take("?"), False
        if not is_optional:
            is_optional = is_many = self.take("*")
            is_many = is_many or self.take("+")
        if is_optional or is_many:
            self.take("?")  # a lazy quantifier ends at the same places

        def ends(start: int) -> frozenset[int]:
            reached: set[int] = set()
            newest = part(start)
            while newest:
                reached |= newest
                newest = frozenset().union(*(part(place) for place in newest)) - reached if is_many else frozenset()
            return frozenset(reached | {start} if is_optional else reached)

        return cache(ends)
