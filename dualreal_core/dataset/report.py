"""What became of every file that the user gave."""

from __future__ import annotations

from dataclasses import dataclass

NOUNS = {"identity": "photo", "motion": "clip"}


def counted(number: int, noun: str) -> str:
    """'1 photo', '2 photos'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
        total, noun = counted(len(self.used) + len(self.skipped), self.given.removesuffix("s")), NOUNS[self.role]
        kind = f"a {noun}" if len(self.used) == 1 else f"{noun}s"
        summary = f"{self.role}: {len(self.used)} of {total} used as {kind}, {counted(self.num_items, 'training sample')}"
        return [summary, *self.notes, *(f"skipped {file}: {reason}" for file, reason in self.skipped.items())]
