"""Captions of files: NAME.txt beside the file, else the pair prompts.txt / videos.txt of the folder, else one prompt for all.

Captions of what is decoded already: one for each, or one for all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

PROMPTS_FILE = "prompts.txt"
LIST_FILE = "videos.txt"


@dataclass(frozen=True)
class Captions:
    """Attributes:
        listed: path -> caption of the pair, in its order; a listed caption may be empty.
        prompt: for files without a caption of their own.
    """

    folder: Path
    listed: dict[Path, str]
    prompt: str

    def of(self, path: Path) -> str:
        """Caption of a file.

        Raises:
            InputError: there is none, or its text file cannot be read.
        """
        beside = path.with_suffix(".txt")
        is_pair_file = beside.parent == self.folder and beside.name in (PROMPTS_FILE, LIST_FILE)
        own = " ".join(_read_lines(beside)).strip() if beside.is_file() and not is_pair_file else ""
        caption = own or self.listed.get(path, "") or self.prompt
        if not caption:
            raise InputError(
                f"{path} has no caption; write one into {beside.name} beside it, list it in {PROMPTS_FILE} and {LIST_FILE}, "
                "or give a prompt for the whole folder."
            )
        return caption


def read_captions(folder: Path, prompt: str | None) -> Captions:
    """Reads the pair: line i of videos.txt is a path relative to the folder, line i of prompts.txt its caption.

    Raises:
        InputError: one file of the pair is missing, or their line counts differ.
    """
    prompts_path, list_path = folder / PROMPTS_FILE, folder / LIST_FILE
    listed: dict[Path, str] = {}
    if prompts_path.is_file() != list_path.is_file():
        present, missing = (PROMPTS_FILE, LIST_FILE) if prompts_path.is_file() else (LIST_FILE, PROMPTS_FILE)
        raise InputError(f"{folder} has {present} but no {missing}; add {missing} with one line per clip, or remove {present}.")
    if prompts_path.is_file():
        names, prompts = _without_blank_end(_read_lines(list_path)), _read_lines(prompts_path)
        prompts = prompts[: len(names)] + _without_blank_end(prompts[len(names) :])
        if len(prompts) != len(names):
            raise InputError(
                f"{prompts_path} has {len(prompts)} lines and {LIST_FILE} has {len(names)}; line i of one belongs to line i of the other."
            )
        for name, caption in zip(names, prompts, strict=True):
            if name:
                listed[Path(os.path.normpath(folder / name.replace("\\", "/")))] = caption
    return Captions(folder, listed, " ".join((prompt or "").split()))


def match_captions(texts: Sequence[str], count: int, noun: str) -> list[str]:
    """One caption per picture or clip; a single one serves all.

    Raises:
        InputError: none at all, another number, or an empty one.
    """
    if not count:
        raise InputError(f"{noun}s holds nothing; wire at least one {noun}.")
    if not texts or not any(text.strip() for text in texts):
        raise InputError(f"The {noun}s have no caption; wire one text per {noun}, or one for all, into texts.")
    if len(texts) not in (1, count):
        raise InputError(f"{noun}s holds {count} and texts {len(texts)}; give one text per {noun}, or a single one for all.")
    for index, text in enumerate(texts, 1):
        if not text.strip():
            raise InputError(f"{noun} {index} has no caption; write one, in a folder into the .txt file beside it, or leave it out.")
    return [text.strip() for text in texts] * (count if len(texts) == 1 else 1)


def _read_lines(path: Path) -> list[str]:
    """Stripped lines; a newline ends a line and begins none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8.") from problem
    except OSError as problem:
        raise InputError(f"{path} cannot be opened ({problem.strerror}); check its permissions.") from problem
    if "\0" in text:  # English in UTF-16 without a byte order mark decodes as UTF-8, with a zero beside each letter
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8.")
    return [line.strip() for line in text.splitlines()]


def _without_blank_end(lines: list[str]) -> list[str]:
    """Lines up to the last that is not empty."""
    return lines[: max((place for place, line in enumerate(lines, 1) if line), default=0)]
