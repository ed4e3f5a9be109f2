"""What lies in a folder of photos or clips: which files may be used, which are not and why, all by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.regular import printable
from .captions import LIST_FILE, Captions, read_captions, reserved_texts
from .text_files import FolderTexts, is_text

SUBFOLDERS = ("images", "videos")
"""Of a folder of both kinds; each side looks into its own."""
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
SYSTEM_FOLDERS = {"__MACOSX"}
NOT_DOWNLOADED = ".icloud"


@dataclass(frozen=True)
class Listing:
    """Attributes:
        files: path -> name relative to the folder, for people; in natural order.
        skipped: reason by name.
    """

    folder: Path
    files: dict[Path, str]
    skipped: dict[str, str]
    notes: tuple[str, ...]
    captions: Captions


def list_folder(
    given: Path | str, prompt: str | None, role: str, noun: str, suffixes: Sequence[str], cure: str, within: Path | None = None
) -> Listing:
    """Files of these suffixes in the folder, in its subfolder of this kind and in its list.

    Args:
        role: 'identity' or 'motion'.
        noun: 'image' or 'video'.
        within: listed files outside of this folder are skipped.

    Raises:
        InputError: no folder, nothing in it, or its list is broken.
    """
    folder = _resolve(given, role)
    skipped: dict[str, str] = {}
    subfolder = folder / f"{noun}s"

    def name(path: Path) -> str:
        return printable(path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path))

    try:
        places = [folder]
        if subfolder.is_dir() and subfolder.resolve() != folder:
            places.append(subfolder)
        inside = [path for place in places for path in place.iterdir()]
        inner = [name(path) for path in sorted(inside) if path.is_dir() and path != subfolder and path.name not in SYSTEM_FOLDERS]
        found = [path for path in inside if not path.is_dir() and not is_text(path)]
        texts = {place: FolderTexts.read(place, reserved_texts(folder)) for place in places}
        captions = read_captions(folder, prompt, texts)
    except OSError as problem:
        raise InputError(f"{printable(str(folder))} cannot be listed ({problem.strerror}); check its permissions.") from problem
    notes = [note for place in places for note in texts[place].stray_notes()]
    skipped |= {name(path): "missing: it is still in iCloud; download it" for path in found if path.name.endswith(NOT_DOWNLOADED)}
    found = [path for path in found if not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES]
    for path in captions.listed:
        if within is not None and not _true_path(path).is_relative_to(_true_path(within)):
            skipped[name(path)] = f"not allowed: {LIST_FILE} lists it, but it lies outside of {within.name}"
        elif not os.path.lexists(path):
            skipped[name(path)] = f"missing: {LIST_FILE} lists it, but there is no such file"
        elif path not in found:
            found.append(path)
    if not found and not skipped:
        below = f" itself; its folder '{inner[0]}' is not looked into: give that one, or" if inner else ";"
        raise InputError(f"The {role} folder {printable(str(folder))} holds no {noun}s{below} {cure}.")
    others = [other for other in inner if other not in SUBFOLDERS and not other.rpartition("/")[2].startswith(".")]
    if others:
        notes.insert(0, f"not looked into: the folder{'s' if len(others) > 1 else ''} {', '.join(others)}")
    found.sort(key=_natural_order)
    for path in found:
        if path.suffix.lower() not in suffixes:
            what = printable(path.suffix) or "a file without suffix"
            skipped[name(path)] = f"unsupported: {what} is not among the {noun} kinds used here"
    files = {path: name(path) for path in found if path.suffix.lower() in suffixes}
    return Listing(folder, files, skipped, tuple(notes), captions)


def _resolve(given: Path | str, role: str) -> Path:
    shown = printable(str(given))
    try:
        folder = Path(given).resolve()
        is_there, is_folder = folder.exists(), folder.is_dir()
    except (OSError, RuntimeError, ValueError) as problem:  # a link in a circle, NUL in a name, no permission
        reason = getattr(problem, "strerror", None) or str(problem)
        raise InputError(f"The {role} folder {shown} cannot be opened ({reason}); check the path.") from problem
    if not is_there:
        raise InputError(f"The {role} folder {printable(str(folder))} does not exist; check the path.")
    if not is_folder:
        raise InputError(f"{printable(str(folder))} is a file; give the folder that holds it as the {role} folder.")
    return folder


def _true_path(path: Path) -> Path:
    """Through links, also through those that lead in a circle, at which `Path.resolve` stops."""
    return Path(os.path.realpath(path))


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """clip2 before clip10."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
