"""What became of every file that the user gave."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    role: str
    folder: str
    used: tuple[str, ...]
    num_items: int
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people: a summary, then the notes, then every skipped file with its reason."""
        noun = "photo" if self.role == "identity" else "clip"
        total = len(self.used) + len(self.skipped)
        summary = f"{self.role}: {len(self.used)} of {total} files used as {noun}s, {self.num_items} training samples"
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
