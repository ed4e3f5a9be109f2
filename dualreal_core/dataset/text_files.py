"""Which text file beside a photo or clip is its caption, however it is written: dog.txt, dog.TXT, dog.png.txt, dog.caption.

Accents are compared as letters: a Mac takes them apart, other systems do not.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from ..files.regular import printable

TEXT_SUFFIXES = (".txt", ".caption")
"""Where a file has several texts, that of the first suffix is its caption."""
LIKENESS_OF_TYPOS = 0.75
MOST_NAMED = 10


def is_text(path: Path) -> bool:
    return path.suffix.lower().strip() in TEXT_SUFFIXES


def find_text(path: Path, reserved: Collection[Path] = ()) -> Path | None:
    """The text file of a photo or clip; `reserved` ones belong to no single file."""
    for suffix in TEXT_SUFFIXES:
        for base in (path.name, path.stem):
            text = path.with_name(f"{base}{suffix}")
            if text not in reserved and os.path.lexists(text) and not text.is_dir():
                return text
    texts, others = _split(path.parent, reserved)
    wanted, owned = {_key(path.name), _key(path.stem)}, {base for other in others for base in (other.name, other.stem)}
    for text in texts:
        bases = _bases(text)
        if wanted & {_key(base) for base in bases} and not (owned - {path.name, path.stem}) & set(bases):
            return text
    return None


def stray_notes(folder: Path, reserved: Collection[Path]) -> list[str]:
    """Names the text files that are nobody's caption, and the file whose name one of them may have missed."""
    texts, others = _split(folder, reserved)
    caption_of = {other: find_text(other, reserved) for other in others}
    owners = {_key(base): other for other in others for base in (other.name, other.stem)}
    bare = {_key(other.stem): other for other, caption in caption_of.items() if caption is None}
    strays, notes = [], []
    for text in texts:
        if text in caption_of.values():
            continue
        shown, keys = printable(text.name), [_key(base) for base in _bases(text)]
        owner = next((owners[key] for key in keys if key in owners), None)
        likely = difflib.get_close_matches(keys[-1], bare, n=1, cutoff=LIKENESS_OF_TYPOS)
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


def _split(folder: Path, reserved: Collection[Path]) -> tuple[list[Path], list[Path]]:
    """Text files, those of the first suffix first, and other files; hidden ones and folders are neither."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path not in reserved and not path.is_dir())
    texts = sorted(filter(is_text, files), key=lambda path: path.suffix.lower().strip() != TEXT_SUFFIXES[0])
    return texts, [path for path in files if not is_text(path)]


def _bases(text: Path) -> list[str]:
    """The name without its suffix, and without each further one: systems that hide suffixes make dog.txt.txt."""
    bases = [text.stem]
    while is_text(Path(bases[-1])):
        bases.append(Path(bases[-1]).stem)
    return bases


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
