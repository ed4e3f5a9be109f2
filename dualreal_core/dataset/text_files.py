"""Which text file beside a photo or clip is its caption, however it is written: dog.txt, dog.TXT, dog.png.txt, dog.caption.

Accents are compared as letters: a Mac takes them apart, other systems do not.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..files.regular import printable

TEXT_SUFFIXES = (".txt", ".caption")
"""Where a file has several texts, that of the first suffix is its caption."""
LIKENESS_OF_TYPOS = 0.75
MOST_NAMED = 10


def is_text(path: Path) -> bool:
    return path.suffix.lower().strip() in TEXT_SUFFIXES


@dataclass(frozen=True)
class FolderTexts:
    """The text files of one folder, and the other files, which they may belong to.

    Attributes:
        texts: those of the first suffix first.
        alike: text files by what their names, without suffixes, have in common with names of other files.
    """

    texts: list[Path]
    others: list[Path]
    alike: dict[str, list[Path]]

    @classmethod
    def read(cls, folder: Path, reserved: Collection[Path] = ()) -> FolderTexts:
        """`reserved` text files belong to no single file; hidden files and folders are neither text nor other."""
        files = [path for path in folder.iterdir() if not path.name.startswith(".") and path not in reserved and not path.is_dir()]
        texts = sorted(filter(is_text, files), key=lambda path: (path.suffix.lower().strip() != TEXT_SUFFIXES[0], path.name))
        alike: dict[str, list[Path]] = {}
        for text in texts:
            for base in _bases(text):
                alike.setdefault(_key(base), []).append(text)
        return cls(texts, sorted(path for path in files if not is_text(path)), alike)

    def find(self, path: Path) -> Path | None:
        """The text file of a photo or clip: of its very name before one that is alike and nobody else's by its very name."""
        for suffix in TEXT_SUFFIXES:
            for base in (path.name, path.stem):
                if f"{base}{suffix}" in self.by_name:
                    return self.by_name[f"{base}{suffix}"]
        own = {path.name, path.stem}
        candidates = [text for base in (path.name, path.stem) for text in self.alike.get(_key(base), [])]
        return next((text for text in candidates if all(base in own or base not in self.owned for base in _bases(text))), None)

    @cached_property
    def by_name(self) -> dict[str, Path]:
        return {text.name: text for text in self.texts}

    @cached_property
    def owned(self) -> frozenset[str]:
        return frozenset(base for other in self.others for base in (other.name, other.stem))

    def stray_notes(self) -> list[str]:
        """Names the text files that are nobody's caption, and the file whose name one of them may have missed."""
        caption_of = {other: self.find(other) for other in self.others}
        owners = {_key(base): other for other in self.others for base in (other.name, other.stem)}
        bare = {_key(other.stem): other for other, caption in caption_of.items() if caption is None}
        used, strays, notes = set(caption_of.values()), [], []
        for text in self.texts:
            if text in used:
                continue
            shown, keys = printable(text.name), [_key(base) for base in _bases(text)]
            owner = next((owners[key] for key in keys if key in owners), None)
            may_be_named = len(notes) + len(strays) < MOST_NAMED  # comparing thousands of names takes long
            likely = difflib.get_close_matches(keys[-1], bare, n=1, cutoff=LIKENESS_OF_TYPOS) if may_be_named else []
            if owner is not None and caption_of[owner] is not None:
                notes.append(f"{shown} is not used: the caption of {printable(owner.name)} is {printable(caption_of[owner].name)}")
            elif likely:
                wanted = bare[likely[0]]
                notes.append(f"{shown} is the caption of no file: did you mean {printable(wanted.stem)}.txt, for {printable(wanted.name)}?")
            else:
                strays.append(shown)
        if strays:
            more = f" and {len(strays) - MOST_NAMED} more" if len(strays) > MOST_NAMED else ""
            names = f"{', '.join(strays[:MOST_NAMED])}{more}"
            notes.append(f"{names} {'is the caption' if len(strays) == 1 else 'are the captions'} of no file here")
        return notes


def _bases(text: Path) -> list[str]:
    """The name without its suffix, and without each further one: systems that hide suffixes make dog.txt.txt."""
    bases = [text.stem]
    while is_text(Path(bases[-1])):
        bases.append(Path(bases[-1]).stem)
    return bases


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
