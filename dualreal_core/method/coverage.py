"""Tells whether a pair acts everywhere: a base that fuses layers, or a patch in place of a block, steps past hooks without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .pair import Role

WHAT_TO_DO = (
    "use the model without what fuses its layers or replaces its blocks (a patch, a compiled or fused form, quantized weights), or a pair "
    "that does not act there"
)


@dataclass(frozen=True)
class Place:
    """A module of a block that must be called for a pair to act; `roles` are the sides that act there."""

    block: str
    layer: str
    roles: frozenset[Role]

    @property
    def path(self) -> str:
        """Of the module in its DiT."""
        return f"{self.block}.{self.layer}"


@dataclass
class Coverage:
    """Which places of a pair have been called.

    Attributes:
        places: all of them.
        num_runs: how often the DiT has run so far; a host that caches calls may leave it out.
    """

    places: list[Place] = field(default_factory=list)
    num_runs: int = 0
    _silent: set[Place] = field(default_factory=set)

    def expect(self, place: Place) -> Place:
        """Counts a place as one that must be called."""
        self.places.append(place)
        self._silent.add(place)
        return place

    def start_over(self) -> None:
        """Every place is to be called anew, as at the beginning of a sampling."""
        self._silent.update(self.places)

    def heard(self, place: Place) -> None:
        """Notes that a place was called."""
        self._silent.discard(place)

    def silent(self, strengths: Mapping[Role, float]) -> list[Place]:
        """Places that no call has reached so far, but for those whose sides have no strength."""
        if not self._silent:
            return []
        return [place for place in self.places if place in self._silent and any(strengths[role] for role in place.roles)]


def name_places(places: Sequence[Place]) -> str:
    """The first place, and how many there are beside it."""
    others = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{places[0].path}{others}"


def stepped_past(places: Sequence[Place]) -> str:
    """The sentence for places that were not called."""
    return f"The pair acts on {name_places(places)}, which the model computed without calling it: {WHAT_TO_DO}."
