"""Reads a folder once and says which samples it gives, and why the other files give none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..files.digest import file_digest
from ..video import VIDEO_SUFFIXES, probe_video
from .captions import LIST_FILE, Captions, read_captions
from .crops import CropSettings
from .items import ClipItem, Item, PhotoItem
from .photos import PHOTO_SUFFIXES, Thumbnail, make_thumbnail, open_photo
from .report import Report, Skipped, nothing_usable
from .segments import TooShort, find_segments
from .sizes import crop_note, enlargement_note, smallest_side, too_small

SUBFOLDERS = ("images", "videos")
"""Of a folder of both kinds; each side looks into its own."""
ONE_VIEW = CropSettings()
PHOTO_CURE = "add PNG, JPEG or WebP photos of at least {side} px on the shorter side"
CLIP_CURE = "add MP4, MOV, AVI, WebM or GIF clips of at least {frames} frames at {fps:g} fps and {side} px on the shorter side"


@dataclass(frozen=True)
class Manifest:
    """Attributes:
        role: 'identity' or 'motion'.
        size: (height, width) of every sample.
    """

    role: str
    folder: Path
    size: tuple[int, int]
    items: tuple[Item, ...]
    report: Report


def scan_identity(
    folder: Path | str, prompt: str | None, size: tuple[int, int], view_settings: CropSettings = ONE_VIEW
) -> Manifest:
    """Photos of the folder and of its `images` subfolder.

    Raises:
        InputError: no folder, nothing usable in it, or a photo without a caption.
    """
    scan = _Scan.open(folder, prompt, "identity", size)
    cure = PHOTO_CURE.format(side=scan.smallest_side)
    thumbnails: dict[Path, Thumbnail] = {}
    num_masks = 0
    for path in scan.files("images", PHOTO_SUFFIXES, "image", cure):
        fingerprint = scan.fingerprint(path)
        if fingerprint is None:
            continue
        try:
            photo = open_photo(path)
        except InputError as problem:
            scan.skip(path, f"unreadable: {problem}")
            continue
        if scan.is_too_small(path, photo.picture.height, photo.picture.width):
            continue
        if photo.subject is not None and photo.subject.getextrema()[1] == 0:
            scan.skip(path, "empty: every pixel is transparent")
            continue
        thumbnail = make_thumbnail(photo)
        twin = next((other for other, seen in thumbnails.items() if seen.is_near(thumbnail)), None)
        if twin is not None:
            scan.skip(path, f"near-identical to {scan.name(twin)}")
            continue
        caption = scan.captions.of(path)
        thumbnails[path] = thumbnail
        num_masks += photo.subject is not None
        for noted in (enlargement_note, crop_note):
            scan.note(noted(scan.name(path), (photo.picture.height, photo.picture.width), view_settings.canvas(size)))
        scan.used.append(path)
        shapes = [("still", 1)] if view_settings.num_clip_frames == 1 else [("still", 1), ("pan", view_settings.num_clip_frames)]
        for kind, num_frames in shapes:
            for view in range(view_settings.num_crops):
                scan.items.append(PhotoItem(path, caption, fingerprint, kind, (view, num_frames), size, view_settings))
    if num_masks:
        scan.notes.append(f"{num_masks} photos carry a subject mask in their alpha channel")
    return scan.manifest(cure)


def scan_motion(
    folder: Path | str,
    prompt: str | None,
    size: tuple[int, int],
    num_frames: int,
    fps: float,
    max_segments: int = 4,
    frame_multiple: int = 1,
) -> Manifest:
    """Clips of the folder, of its `videos` subfolder and of its list, resampled to `fps` and cut into windows.

    num_frames: length of a window; must be frame_multiple * k + 1. Shorter clips give one window of the longest valid length.

    Raises:
        InputError: no folder, nothing usable in it, or a clip without a caption.
    """
    if num_frames < 2 or (num_frames - 1) % frame_multiple:
        raise ValueError(f"num_frames is {num_frames}; it must be {frame_multiple} * k + 1 with k of 1 or more.")
    if fps <= 0 or max_segments < 1:
        raise ValueError(f"fps is {fps} and max_segments is {max_segments}; fps must be above 0 and max_segments 1 or more.")
    scan = _Scan.open(folder, prompt, "motion", size)
    shortest = frame_multiple + 1
    cure = CLIP_CURE.format(frames=shortest, fps=fps, side=scan.smallest_side)
    num_resampled = 0
    for path in scan.files("videos", VIDEO_SUFFIXES, "video", cure):
        fingerprint = scan.fingerprint(path)
        if fingerprint is None:
            continue
        try:
            probe = probe_video(path)
        except InputError as problem:
            scan.skip(path, f"unreadable: {problem}")
            continue
        if scan.is_too_small(path, probe.height, probe.width):
            continue
        try:
            windows = find_segments(probe.times, probe.duration, fps, num_frames, max_segments, frame_multiple)
        except TooShort as problem:
            scan.skip(path, str(problem))
            continue
        caption = scan.captions.of(path)
        if windows.length < num_frames:
            had = f"{len(windows.shown)} frames at {fps:g} fps"
            scan.notes.append(f"{scan.name(path)} has {had} and is used at {windows.length} instead of {num_frames}")
        num_resampled += abs(probe.fps - fps) > 0.01 * fps
        scan.used.append(path)
        for start in windows.starts:
            scan.items.append(ClipItem(path, caption, fingerprint, (start, windows.length), windows.indices(start), size, fps))
    if num_resampled:
        scan.notes.append(f"{num_resampled} clips are resampled to {fps:g} fps at their true speed")
    return scan.manifest(cure)


@dataclass
class _Scan:
    """The part of a scan that photos and clips share."""

    role: str
    folder: Path
    size: tuple[int, int]
    captions: Captions
    used: list[Path] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str, prompt: str | None, role: str, size: tuple[int, int]) -> _Scan:
        folder = Path(folder).resolve()
        if not folder.exists():
            raise InputError(f"The {role} folder {folder} does not exist; check the path.")
        if not folder.is_dir():
            raise InputError(f"{folder} is a file; give the folder that holds it as the {role} folder.")
        return cls(role, folder, size, read_captions(folder, prompt))

    @property
    def smallest_side(self) -> int:
        return smallest_side(self.size)

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def skip(self, path: Path, reason: str) -> None:
        self.skipped.append(Skipped(self.name(path), reason))

    def note(self, note: str | None) -> None:
        if note is not None:
            self.notes.append(note)

    def files(self, subfolder: str, suffixes: tuple[str, ...], noun: str, cure: str) -> list[Path]:
        """Candidates in natural order; other files, except text and hidden ones, are skipped as unsupported."""
        try:
            found = [path for place in (self.folder, self.folder / subfolder) if place.is_dir() for path in place.iterdir()]
            inner = sorted(path.name for path in self.folder.iterdir() if path.is_dir() and path.name != subfolder)
        except OSError as problem:
            raise InputError(f"{self.folder} cannot be listed ({problem.strerror}); check its permissions.") from problem
        found = [path for path in found if not path.is_dir() and not path.name.startswith(".") and path.suffix.lower() != ".txt"]
        for path in self.captions.listed:
            if path.is_file() and path not in found:
                found.append(path)
            elif not path.is_file():
                self.skip(path, f"missing: {LIST_FILE} lists it, but there is no such file")
        if not found and not self.skipped:
            below = f" itself; its folder '{inner[0]}' is not looked into: give that one, or" if inner else ";"
            raise InputError(f"The {self.role} folder {self.folder} holds no {noun}s{below} {cure}.")
        others = [name for name in inner if name not in SUBFOLDERS and not name.startswith(".")]
        if others:
            self.notes.append(f"not looked into: the folder{'s' if len(others) > 1 else ''} {', '.join(others)}")
        found.sort(key=_natural_order)
        for path in found:
            if path.suffix.lower() not in suffixes:
                self.skip(path, f"unsupported: {path.suffix or 'a file without suffix'} is not among the {noun} kinds used here")
        return [path for path in found if path.suffix.lower() in suffixes]

    def fingerprint(self, path: Path) -> str | None:
        """sha256 of the file; None, with the reason noted, for a second copy or a file that cannot be opened."""
        try:
            digest = file_digest(path)
        except OSError as problem:
            self.skip(path, f"unreadable: {problem.strerror}")
            return None
        if digest in self.seen:
            self.skip(path, f"exact duplicate of {self.name(self.seen[digest])}")
            return None
        self.seen[digest] = path
        return digest

    def is_too_small(self, path: Path, height: int, width: int) -> bool:
        reason = too_small((height, width), self.size)
        if reason is not None:
            self.skip(path, reason)
        return reason is not None

    def manifest(self, cure: str) -> Manifest:
        if not self.items:
            raise nothing_usable(str(self.folder), self.skipped, "files", cure)
        used = tuple(map(self.name, self.used))
        report = Report(self.role, str(self.folder), used, len(self.items), tuple(self.skipped), tuple(self.notes))
        return Manifest(self.role, self.folder, self.size, tuple(self.items), report)


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """clip2 before clip10."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
