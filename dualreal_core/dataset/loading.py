"""Whole photos of a folder, one after another, for those who do not train on them at once: what is broken is named and passed over."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import InputError
from ..files.regular import printable, unreadable_reason
from .folder import Listing
from .photos import Photo, open_photo
from .report import counted
from .selection import nothing_usable


@dataclass(frozen=True)
class LoadedPhoto:
    """Attributes:
        name: of the file, relative to its folder.
        caption: empty where there is none.
        picture: (H, W, 3) in [0, 1]; grey shows where the photo is transparent.
        mask: (H, W), 1 on the subject, all 1 where the whole photo counts.
    """

    name: str
    caption: str
    picture: torch.Tensor
    mask: torch.Tensor


@dataclass
class Loader:
    """Reads the files of a listing and keeps account of them.

    Attributes:
        noun: 'photo' or 'clip'.
        remarks: about single files.
    """

    listing: Listing
    noun: str
    loaded: list[str] = field(default_factory=list)
    uncaptioned: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def photos(self, max_side: int) -> Iterator[LoadedPhoto]:
        """max_side: of the longer side in px; larger photos are scaled down; 0 for any size."""
        for path, name, caption in self.files():
            try:
                photo = open_photo(path)
            except InputError as problem:
                self.skip(name, problem)
                continue
            height, width = photo.picture.shape[:2]
            size = _size_within((height, width), max_side)
            self.remarks += [f"{name} {remark}" for remark in photo.remarks]
            if photo.profile:
                self.remarks.append(f"{name} is converted from {photo.profile} to sRGB")
            if size != (height, width):
                self.remarks.append(f"{name} is {width}x{height} and is scaled to {size[1]}x{size[0]}")
            self.keep(name, caption)
            yield _loaded(name, caption, photo, size)

    def files(self) -> Iterator[tuple[Path, str, str]]:
        """Path, name and caption of every file that has content and a readable caption or none."""
        for path, name in self.listing.files.items():
            reason = unreadable_reason(path)
            if reason is not None:
                self.skipped[name] = f"unreadable: it {reason}"
                continue
            try:
                yield path, name, self.listing.captions.own(path) or self.listing.captions.prompt
            except InputError as problem:
                self.skipped[name] = f"its caption cannot be read: {printable(str(problem))}"

    def keep(self, name: str, caption: str) -> None:
        self.loaded.append(name)
        if not caption:
            self.uncaptioned.append(name)

    def skip(self, name: str, problem: Exception) -> None:
        """What is wrong with a file, in one line."""
        self.skipped[name] = f"unreadable: {printable(' '.join(str(problem).split())) or type(problem).__name__}"

    def report(self, where: str, cure: str) -> list[str]:
        """A summary, then notes, then every skipped file with its reason.

        Raises:
            InputError: nothing could be loaded.
        """
        skipped = {**self.listing.skipped, **self.skipped}
        if not self.loaded:
            raise nothing_usable(where, "files", skipped, cure)
        notes = [*self.listing.notes, *self.remarks]
        if self.uncaptioned:
            notes.append(f"without a caption: {', '.join(self.uncaptioned)}")
        kind = f"a {self.noun}" if len(self.loaded) == 1 else f"{self.noun}s"
        summary = f"{len(self.loaded)} of {counted(len(self.loaded) + len(skipped), 'file')} loaded as {kind}"
        return [summary, *notes, *(f"skipped {name}: {reason}" for name, reason in skipped.items())]


def folder_state(folder: Path) -> str:
    """Changes with any file in the folder or below it: name, length or time of the last change."""
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        folders.sort()
        for path in (Path(place, name) for name in sorted(files)):
            try:
                status = path.stat()
            except OSError:
                status = None
            state = None if status is None else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            digest.update(f"{os.fsencode(path)!r} {state}\n".encode())
    return digest.hexdigest()


def _size_within(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size)) if max_side else 1.0
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _loaded(name: str, caption: str, photo: Photo, size: tuple[int, int]) -> LoadedPhoto:
    fitted = photo.cover(size)
    return LoadedPhoto(name, caption, fitted.picture, torch.ones(size) if fitted.subject is None else fitted.subject)
