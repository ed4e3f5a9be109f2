"""What became of every file that the user gave."""

from __future__ import annotations

from dataclasses import dataclass


class Unusable(ValueError):
    """A photo or clip that is not trained on. The message is the reason, and begins with its kind: 'too small', 'unreadable', ..."""


@dataclass(frozen=True)
class Report:
    """Files by name relative to the folder.

    Attributes:
        role: 'identity' or 'motion'.
        given: what was given, for people.
        num_items: training samples made of the used files: crops of photos, segments of clips.
        skipped: reason by file.
    """

    role: str
    given: str
    used: tuple[str, ...]
    num_items: int
    skipped: dict[str, str]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people: a summary, then the notes, then every skipped file with its reason."""
        noun = "photo" if self.role == "identity" else "clip"
        total = len(self.used) + len(self.skipped)
        summary = f"{self.role}: {len(self.used)} of {total} {self.given} used as {noun}s, {self.num_items} training samples"
        return [summary, *self.notes, *(f"skipped {file}: {reason}" for file, reason in self.skipped.items())]
