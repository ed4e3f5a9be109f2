"""Captions of files: a text file beside the file, else the pair prompts.txt / videos.txt of the folder, else one prompt for all.

Captions of what is decoded already: one for each, or one for all.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..files.regular import printable, unreadable_reason
from .text_files import FolderTexts

PROMPTS_FILE = "prompts.txt"
LIST_FILE = "videos.txt"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""UTF-32 in front: its little-endian mark begins with that of UTF-16."""


@dataclass(frozen=True)
class Captions:
    """Attributes:
        listed: path -> caption of the pair, in its order; a listed caption may be empty.
        prompt: for files without a caption of their own.
        texts: of the folders that were looked through; others are when a file of theirs is asked for.
    """

    folder: Path
    listed: dict[Path, str]
    prompt: str
    texts: Mapping[Path, FolderTexts] = field(default_factory=dict)

    def own(self, path: Path) -> str:
        """Caption in the file's text file or in the pair; empty where there is none.

        Raises:
            InputError: its text file cannot be read.
        """
        beside = (self.texts.get(path.parent) or FolderTexts.read(path.parent, reserved_texts(self.folder))).find(path)
        return (clean_caption("\n".join(_read_lines(beside))) if beside else "") or self.listed.get(path, "")

    def of(self, path: Path) -> str:
        """Caption of a file.

        Raises:
            InputError: there is none, or its text file cannot be read.
        """
        caption = self.own(path) or self.prompt
        if not caption:
            raise InputError(
                f"{printable(str(path))} has no caption; write one into {printable(path.stem)}.txt beside it, list it in "
                f"{PROMPTS_FILE} and {LIST_FILE}, or give a prompt for the whole folder."
            )
        return caption


def reserved_texts(folder: Path) -> frozenset[Path]:
    """Text files that are no caption of one file."""
    return frozenset({folder / PROMPTS_FILE, folder / LIST_FILE})


def read_captions(folder: Path, prompt: str | None, texts: Mapping[Path, FolderTexts] | None = None) -> Captions:
    """Reads the pair: line i of videos.txt is a path relative to the folder, line i of prompts.txt its caption.

    texts: of folders that were looked through already.

    Raises:
        InputError: one file of the pair is missing, or their line counts differ.
    """
    prompts_path, list_path = folder / PROMPTS_FILE, folder / LIST_FILE
    listed: dict[Path, str] = {}
    if prompts_path.is_file() != list_path.is_file():
        present, missing = (PROMPTS_FILE, LIST_FILE) if prompts_path.is_file() else (LIST_FILE, PROMPTS_FILE)
        place = printable(str(folder))
        raise InputError(f"{place} has {present} but no {missing}; add {missing} with one line per clip, or remove {present}.")
    if prompts_path.is_file():
        names, prompts = _without_blank_end(_read_lines(list_path)), _read_lines(prompts_path)
        prompts = prompts[: len(names)] + _without_blank_end(prompts[len(names) :])
        if len(prompts) != len(names):
            raise InputError(
                f"{printable(str(prompts_path))} has {len(prompts)} lines and {LIST_FILE} has {len(names)}; "
                "line i of one belongs to line i of the other."
            )
        for name, caption in zip(names, prompts, strict=True):
            if name:
                listed[Path(os.path.normpath(folder / name.replace("\\", "/")))] = caption
    return Captions(folder, listed, " ".join((prompt or "").split()), texts or {})


def match_captions(texts: Sequence[str | None], count: int, noun: str, names: Sequence[str] | None = None) -> list[str]:
    """One caption per picture or clip; a single one serves all.

    names: of the pictures or clips, for people.

    Raises:
        InputError: none at all, another number, or an empty or garbled one.
    """
    if not count:
        raise InputError(f"{noun}s holds nothing; wire at least one {noun}.")
    captions = [clean_caption(text or "") for text in texts or []]
    if not any(captions):
        raise InputError(f"The {noun}s have no caption; wire one text per {noun}, or one for all, into texts.")
    if len(captions) not in (1, count):
        raise InputError(f"{noun}s holds {count} and texts {len(captions)}; give one text per {noun}, or a single one for all.")
    names, captions = names or [f"{noun} {number}" for number in range(1, count + 1)], captions * (count if len(captions) == 1 else 1)
    missing = [name for name, caption in zip(names, captions, strict=True) if not caption]
    if missing:
        raise InputError(f"{_enumerated(missing)} no caption; write one, in a folder into the .txt file beside it, or leave it out.")
    garbled = next((name for name, caption in zip(names, captions, strict=True) if "\0" in caption), None)
    if garbled:
        raise InputError(f"The caption of {garbled} is not UTF-8 text; save its text file as UTF-8.")
    return captions


def clean_caption(text: str) -> str:
    """One line, without the byte order mark that editors of Windows put in front."""
    return " ".join(line.strip() for line in text.lstrip("\ufeff").splitlines()).strip()


def _enumerated(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last} have" if others else f"{last} has"


def _read_lines(path: Path) -> list[str]:
    """Stripped lines; a newline ends a line and begins none. UTF-8, or what a byte order mark says."""
    shown, reason = printable(str(path)), unreadable_reason(path, may_be_empty=True)
    if reason is not None:
        raise InputError(f"{shown} {reason}; replace it or remove it.")
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
        text = content.decode(encoding)
    except UnicodeDecodeError as problem:
        raise InputError(f"{shown} is not UTF-8 text; save it as UTF-8.") from problem
    except OSError as problem:
        raise InputError(f"{shown} cannot be opened ({problem.strerror}); check its permissions.") from problem
    if "\0" in text:  # English in UTF-16 without a byte order mark decodes as UTF-8, with a zero beside each letter
        raise InputError(f"{shown} is not UTF-8 text; save it as UTF-8.")
    return [line.strip() for line in text.splitlines()]


def _without_blank_end(lines: list[str]) -> list[str]:
    """Lines up to the last that is not empty."""
    return lines[: max((place for place, line in enumerate(lines, 1) if line), default=0)]
