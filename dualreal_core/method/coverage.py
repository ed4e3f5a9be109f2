"""Tells whether a pair acts everywhere: a base that fuses layers, or a patch in place of a block, steps past some without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .pair import Role

WHAT_TO_DO = (
    "use the model without what fuses its layers or replaces its blocks (a patch, a fused form, quantized weights), or a pair "
    "that does not act there"
)


@dataclass(frozen=True)
class Place:
    """A module of a block that must be called for a pair to act.

    Attributes:
        roles: the sides that act there.
        audio_module: the part of the block around it that calls without sound leave out, or ''.
        is_audio: whether it writes sound.
    """

    block: str
    layer: str
    roles: frozenset[Role]
    audio_module: str = ""
    is_audio: bool = False

    @property
    def path(self) -> str:
        """Of the module in its DiT."""
        return f"{self.block}.{self.layer}"


@dataclass(eq=False)
class Mark:
    """Whether a place was called. Set by code that may be compiled, which assigns without reading."""

    place: Place
    was_called: bool = False


@dataclass(eq=False)
class Coverage:
    """Which places of a pair have been called.

    Attributes:
        marks: one for each place.
        has_run: whether the DiT has run, so that its places should have been called; a host that caches calls may leave it out.
    """

    marks: list[Mark] = field(default_factory=list)
    has_run: bool = False
    _is_complete: bool = False

    def expect(self, place: Place) -> Mark:
        """Counts a place as one that must be called."""
        self.marks.append(Mark(place))
        return self.marks[-1]

    def start_over(self) -> None:
        """Every place is to be called anew, as at the beginning of a sampling."""
        self.has_run = self._is_complete = False
        for mark in self.marks:
            mark.was_called = False

    def silent(self, strengths: Mapping[Role, float], audio_strength: float = 0.0) -> list[Place]:
        """Places that no call has reached so far, but for those without strength, and those of parts that no call had any use for."""
        if self._is_complete:
            return []
        places = [mark.place for mark in self.marks if not mark.was_called]
        self._is_complete = not places
        heard = {"", *(mark.place.audio_module for mark in self.marks if mark.was_called)}
        return [
            place
            for place in places
            if any(strengths[role] for role in place.roles) and place.audio_module in heard and (audio_strength or not place.is_audio)
        ]


def name_places(places: Sequence[Place]) -> str:
    """The first place, and how many there are beside it."""
    others = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{places[0].path}{others}"


def stepped_past(places: Sequence[Place]) -> str:
    """The sentence for places that were not called."""
    return f"The pair acts on {name_places(places)}, which the model computed without calling it: {WHAT_TO_DO}."
