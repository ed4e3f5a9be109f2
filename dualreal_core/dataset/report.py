"""What became of every file that the user gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Skipped:
    """A file that is not trained on. The reason begins with its kind: 'too small', 'unreadable', ..."""

    file: str
    reason: str


@dataclass(frozen=True)
class Report:
    """Files by name relative to the folder.

    Attributes:
        role: 'identity' or 'motion'.
        num_items: training samples made of the used files: views of photos, windows of clips.
        given: what was given, for people.
    """

    role: str
    folder: str
    used: tuple[str, ...]
    num_items: int
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    given: str = "files"

    def lines(self) -> list[str]:
        """For people: a summary, then the notes, then every skipped file with its reason."""
        noun = "photo" if self.role == "identity" else "clip"
        total = len(self.used) + len(self.skipped)
        summary = f"{self.role}: {len(self.used)} of {total} {self.given} used as {noun}s, {self.num_items} training samples"
        return [summary, *self.notes, *(f"skipped {skip.file}: {skip.reason}" for skip in self.skipped)]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "role": self.role,
            "folder": self.folder,
            "used": list(self.used),
            "num_items": self.num_items,
            "skipped": [{"file": skip.file, "reason": skip.reason} for skip in self.skipped],
            "notes": list(self.notes),
        }


def nothing_usable(where: str, skipped: Sequence[Skipped], given: str, cure: str) -> InputError:
    """The error for a set without a single training sample; it names the first reason."""
    first = skipped[0]
    count = f"none of the {len(skipped)} {given}" if len(skipped) > 1 else f"the only {given.removesuffix('s')}"
    return InputError(f"{where}: {count} can be used ({first.file}: {first.reason.rstrip('.')}); {cure}.")
