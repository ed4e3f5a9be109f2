"""Reads a folder once and says which samples it gives, and why the other files give none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files.digest import file_digest
from ..files.regular import unreadable_reason
from ..video import VIDEO_SUFFIXES, ClipProbe, decode_clip, probe_video
from .captions import Captions
from .crops import CropSettings
from .folder import list_folder
from .items import ClipSource, Item, PhotoSource, Pixels
from .photos import PHOTO_SUFFIXES, Photo, open_photo
from .report import NOUNS, Report, Unusable, counted
from .selection import ClipSelection, PhotoSelection, Selection
from .sizes import Size, TrainingSize, smallest_side

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
        reason = unreadable_reason(self.path)
        if reason is not None:
            raise Unusable(f"unreadable: it {reason}")
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
    notes = [*chosen.notes, *chosen.framing, *chosen.profile_notes(), *chosen.mask_notes("in {} alpha channel")]
    return Manifest(items, chosen.report(where, cure, notes))


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
    listing = list_folder(given, prompt, chosen.role, kind.noun, kind.suffixes, cure)
    chosen.notes += listing.notes
    chosen.skipped |= listing.skipped
    sources = [kind(path, name, listing.captions) for path, name in listing.files.items()]
    items = tuple(item for source in sources for item in chosen.add(source))
    prompt = listing.captions.prompt
    with_own = sum(source.caption != prompt for source in sources if source.name in chosen.used)
    if prompt and with_own:
        own = "has a caption of its own, which is" if with_own == 1 else "have captions of their own, which are"
        chosen.notes.append(f"{counted(with_own, NOUNS[chosen.role])} {own} used instead of the prompt '{prompt}'")
    return str(listing.folder), items
