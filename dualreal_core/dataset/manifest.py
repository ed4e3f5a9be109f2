"""Reads a folder once and says which samples it gives, and why the other files give none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.digest import file_digest
from ..video import VIDEO_SUFFIXES, ClipProbe, decode_clip, probe_video
from ..video.containers import check_file
from .captions import LIST_FILE, Captions, read_captions
from .crops import CropSettings
from .items import ClipSource, Item, PhotoSource, Pixels
from .photos import PHOTO_SUFFIXES, Photo, open_photo
from .report import Report, Unusable
from .selection import ClipSelection, PhotoSelection, Selection
from .sizes import Size, TrainingSize, smallest_side

SUBFOLDERS = ("images", "videos")
"""Of a folder of both kinds; each side looks into its own."""
ONE_CROP = CropSettings()
PHOTO_CURE = "add PNG, JPEG or WebP photos of at least {side} px on the shorter side"
CLIP_CURE = "add MP4, MOV, AVI, WebM or GIF clips of at least {frames} frames at {fps:g} fps and {side} px on the shorter side"


@dataclass(frozen=True)
class Manifest:
    """What a folder gives."""

    items: tuple[Item, ...]
    report: Report


@dataclass(frozen=True)
class _File:
    """The name is relative to the folder."""

    path: Path
    name: str
    captions: Captions

    @property
    def caption(self) -> str:
        return self.captions.of(self.path)

    def fingerprint(self) -> str:
        try:
            return file_digest(self.path)
        except OSError as problem:
            raise Unusable(f"unreadable: {problem.strerror}") from problem


class PhotoFile(_File, PhotoSource):
    """A photo in a folder."""

    noun, suffixes = "image", PHOTO_SUFFIXES

    def open(self) -> Photo:
        return open_photo(self.path)


class ClipFile(_File, ClipSource):
    """A clip in a folder."""

    noun, suffixes = "video", VIDEO_SUFFIXES

    def fingerprint(self) -> str:
        try:
            check_file(self.path)
        except InputError as problem:
            raise Unusable(f"unreadable: {problem}") from problem
        return super().fingerprint()

    def probe(self) -> ClipProbe:
        return probe_video(self.path)

    def frames(self, indices: Sequence[int], size: Size) -> Pixels:
        frames, subject = decode_clip(self.path, indices, size)
        return frames.float() / 255, None if subject is None else subject.float() / 255


def scan_identity(folder: Path | str, prompt: str | None, size: Size, crops: CropSettings = ONE_CROP) -> Manifest:
    """Photos of the folder and of its `images` subfolder.

    Raises:
        InputError: no folder, nothing usable in it, or a photo without a caption.
    """
    chosen = PhotoSelection("files", TrainingSize(*size, multiple=1), crops)
    cure = PHOTO_CURE.format(side=smallest_side(size))
    where, items = _add_files(folder, prompt, chosen, PhotoFile, cure)
    masks = [f"{chosen.num_masks} photos carry a subject mask in their alpha channel"] if chosen.num_masks else []
    return Manifest(items, chosen.report(where, cure, [*chosen.notes, *chosen.framing, *masks]))


def scan_motion(
    folder: Path | str,
    prompt: str | None,
    size: Size,
    num_frames: int,
    fps: float,
    max_segments: int = 4,
    frame_multiple: int = 1,
) -> Manifest:
    """Clips of the folder, of its `videos` subfolder and of its list, resampled to `fps` and cut into segments.

    num_frames: length of a segment; must be frame_multiple * k + 1. Shorter clips give one segment of the longest valid length.

    Raises:
        InputError: no folder, nothing usable in it, or a clip without a caption.
    """
    if num_frames < 2 or (num_frames - 1) % frame_multiple:
        raise ValueError(f"num_frames is {num_frames}; it must be {frame_multiple} * k + 1 with k of 1 or more.")
    if fps <= 0 or max_segments < 1:
        raise ValueError(f"fps is {fps} and max_segments is {max_segments}; fps must be above 0 and max_segments 1 or more.")
    chosen = ClipSelection("files", TrainingSize(*size, multiple=1), num_frames, fps, max_segments, frame_multiple)
    cure = CLIP_CURE.format(frames=frame_multiple + 1, fps=fps, side=smallest_side(size))
    where, items = _add_files(folder, prompt, chosen, ClipFile, cure)
    short = [
        f"{name} has {len(segments.shown)} frames at {fps:g} fps and is used at {segments.length} instead of {num_frames}"
        for name, segments in chosen.shortened.items()
    ]
    return Manifest(items, chosen.report(where, cure, [*chosen.notes, *short, *chosen.rate_notes()]))


def _add_files(
    given: Path | str, prompt: str | None, chosen: Selection, kind: type[PhotoFile | ClipFile], cure: str
) -> tuple[str, tuple[Item, ...]]:
    """The folder, and samples of its files in natural order; other files, except text and hidden ones, are skipped as unsupported."""
    folder = Path(given).resolve()
    if not folder.exists():
        raise InputError(f"The {chosen.role} folder {folder} does not exist; check the path.")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give the folder that holds it as the {chosen.role} folder.")
    captions, subfolder = read_captions(folder, prompt), f"{kind.noun}s"

    def name(path: Path) -> str:
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)

    try:
        found = [path for place in (folder, folder / subfolder) if place.is_dir() for path in place.iterdir()]
        inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != subfolder)
    except OSError as problem:
        raise InputError(f"{folder} cannot be listed ({problem.strerror}); check its permissions.") from problem
    found = [path for path in found if not path.is_dir() and not path.name.startswith(".") and path.suffix.lower() != ".txt"]
    for path in captions.listed:
        if path.is_file() and path not in found:
            found.append(path)
        elif not path.is_file():
            chosen.skipped[name(path)] = f"missing: {LIST_FILE} lists it, but there is no such file"
    if not found and not chosen.skipped:
        below = f" itself; its folder '{inner[0]}' is not looked into: give that one, or" if inner else ";"
        raise InputError(f"The {chosen.role} folder {folder} holds no {subfolder}{below} {cure}.")
    others = [other for other in inner if other not in SUBFOLDERS and not other.startswith(".")]
    if others:
        chosen.notes.append(f"not looked into: the folder{'s' if len(others) > 1 else ''} {', '.join(others)}")
    found.sort(key=_natural_order)
    usable = [path for path in found if path.suffix.lower() in kind.suffixes]
    for path in found:
        if path not in usable:
            what = path.suffix or "a file without suffix"
            chosen.skipped[name(path)] = f"unsupported: {what} is not among the {kind.noun} kinds used here"
    return str(folder), tuple(item for path in usable for item in chosen.add(kind(path, name(path), captions)))


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """clip2 before clip10."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
