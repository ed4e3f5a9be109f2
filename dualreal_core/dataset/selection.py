"""Which photos and clips are trained on, and why the others are not: the same rules for files and for decoded pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from ..errors import InputError
from ..files.regular import printable
from .crops import CropSettings, crop_place
from .items import ClipSource, Item, PhotoSource, Source
from .photos import Thumbnail, make_thumbnail
from .report import NOUNS, Report, Unusable, counted
from .segments import Segments, find_segments, segment_length, shortest_length
from .sizes import TrainingSize, framing_notes

Read = TypeVar("Read")


@dataclass
class Selection(ABC):
    """Grows source by source, and keeps none of them.

    Attributes:
        given: what was given, for people.
        skipped: reason by name.
        notes: what people should know about the set.
        framing: which sources are enlarged or lose much to the crop.
        seen: name of the used source with a fingerprint.
        shapes: how many samples have which (frames, height, width).
    """

    role: ClassVar[str]
    given: str
    size: TrainingSize
    used: list[str] = field(init=False, default_factory=list)
    skipped: dict[str, str] = field(init=False, default_factory=dict)
    notes: list[str] = field(init=False, default_factory=list)
    framing: list[str] = field(init=False, default_factory=list)
    seen: dict[str, str] = field(init=False, default_factory=dict)
    shapes: Counter[tuple[int, int, int]] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self.notes += self.size.notes()

    def add(self, source: Source) -> list[Item]:
        """Its training samples; none, with the reason kept, where it is unusable.

        Raises:
            InputError: it has no caption, and nothing else is wrong with it.
        """
        try:
            fingerprint = source.fingerprint()
            if fingerprint in self.seen:
                raise Unusable(f"exact duplicate of {self.seen[fingerprint]}")
            items = self.cut(source, fingerprint)
        except Unusable as problem:
            self.skipped[source.name] = str(problem)
            return []
        self.seen[fingerprint] = source.name
        self.used.append(source.name)
        self.shapes.update((item.num_frames, *item.size) for item in items)
        return items

    @abstractmethod
    def cut(self, source: Source, fingerprint: str) -> list[Item]:
        """The samples of a source that is no duplicate; raises Unusable where there are none."""

    def report(self, where: str, cure: str, notes: Sequence[str]) -> Report:
        """What became of everything that was given.

        Raises:
            InputError: nothing was usable; names the first reason.
        """
        if not self.used:
            raise nothing_usable(where, self.given, self.skipped, cure)
        return Report(self.role, self.given, tuple(self.used), self.shapes.total(), self.skipped, tuple(notes))


@dataclass
class PhotoSelection(Selection):
    """Crops of photos.

    Attributes:
        profiles: names of the sources that were converted to sRGB, by colour profile.
    """

    role = "identity"
    crops: CropSettings
    num_masks: int = field(init=False, default=0)
    thumbnails: dict[str, Thumbnail] = field(init=False, default_factory=dict)
    profiles: dict[str, list[str]] = field(init=False, default_factory=dict)

    def cut(self, source: PhotoSource, fingerprint: str) -> list[Item]:
        photo = _read(source.open)
        picture, margin = tuple(photo.picture.shape[:2]), self.crops.crop_margin
        canvas, size = self.size.fit(picture, margin)
        if photo.subject is not None and photo.subject.max() <= 0:
            raise Unusable("empty: every pixel is transparent")
        thumbnail = make_thumbnail(photo)
        twin = next((other for other, seen in self.thumbnails.items() if seen.is_near(thumbnail)), None)
        if twin is not None:
            raise Unusable(f"near-identical to {twin}")
        caption = source.caption
        self.thumbnails[source.name] = thumbnail
        self.num_masks += photo.subject is not None
        self.framing += [f"{source.name} {remark}" for remark in photo.remarks] + framing_notes(source.name, picture, canvas)
        colours = ("sRGB",) if photo.profile else ()
        if photo.profile:
            self.profiles.setdefault(photo.profile, []).append(source.name)
        places = [crop_place(canvas, size, fingerprint, crop) for crop in range(self.crops.num_crops)]
        return [
            Item(source, caption, fingerprint, [0], canvas, place, size, f"crop {crop + 1}", ("still", (crop, 1), size, margin, *colours))
            for crop, place in enumerate(places)
        ]

    def mask_notes(self, place: str = "") -> list[str]:
        """How many carry a mask, and where; `place` has a gap for 'its' or 'their'."""
        if not self.num_masks:
            return []
        noun = NOUNS[self.role] if self.given == "files" else self.given.removesuffix("s")
        verb, whose = ("carries", "its") if self.num_masks == 1 else ("carry", "their")
        return [" ".join([counted(self.num_masks, noun), verb, "a subject mask", place.format(whose)]).rstrip()]

    def profile_notes(self) -> list[str]:
        """Which are converted to sRGB, and from what."""
        return [f"converted to sRGB from {profile}: {', '.join(names)}" for profile, names in self.profiles.items()]


@dataclass
class ClipSelection(Selection):
    """Segments of clips, resampled by time.

    Attributes:
        num_frames: wanted length of a segment, rounded down to frame_multiple * k + frame_remainder.
        fps: frames per second; 0 keeps each clip's own.
        shortened: clips that give a single shorter segment, by name.
    """

    role = "motion"
    num_frames: int
    fps: float
    max_segments: int
    frame_multiple: int
    frame_remainder: int = 1
    num_resampled: int = field(init=False, default=0)
    shortened: dict[str, Segments] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError where the VAE takes no segment of that length."""
        super().__post_init__()
        wanted, lengths = self.num_frames, (self.frame_multiple, self.frame_remainder)
        fitting = segment_length(wanted, wanted, *lengths)
        if fitting is None:
            raise InputError(f"frames is {wanted}, and motion needs at least {shortest_length(*lengths)} with this VAE; raise it.")
        self.num_frames = fitting
        if fitting != wanted:
            self.notes.append(f"{wanted} frames do not fit the VAE, which takes {lengths[0]} * k + {lengths[1]}: {fitting} are used")

    def cut(self, source: ClipSource, fingerprint: str) -> list[Item]:
        probe = _read(source.probe)
        picture, fps = (probe.height, probe.width), self.fps or probe.fps
        canvas, size = self.size.fit(picture)
        segments = find_segments(probe, fps, self.num_frames, self.max_segments, self.frame_multiple, self.frame_remainder)
        caption = source.caption
        if segments.length < self.num_frames:
            self.shortened[source.name] = segments
        self.num_resampled += abs(probe.fps - fps) > 0.01 * fps
        self.framing += framing_notes(source.name, picture, canvas)
        self.notes += [f"{source.name}: {remark}" for remark in probe.remarks]
        items = []
        for start in segments.starts:
            stop = start + segments.length
            settings = "clip", (start, segments.length), size, fps
            shown = segments.shown[start:stop]
            items.append(Item(source, caption, fingerprint, shown, size, (0, 0), size, f"frames {start}-{stop - 1}", settings, fps))
        return items

    def rate_notes(self) -> list[str]:
        """Which clips are resampled."""
        if not self.num_resampled:
            return []
        verb, whose = ("is", "its") if self.num_resampled == 1 else ("are", "their")
        return [f"{counted(self.num_resampled, 'clip')} {verb} resampled to {self.fps:g} fps at {whose} true speed"]


def nothing_usable(where: str, given: str, skipped: Mapping[str, str], cure: str) -> InputError:
    """That none of what was given can be used, with the first reason.

    given: in the plural, such as 'files'.
    """
    count = f"none of the {len(skipped)} {given} can" if len(skipped) > 1 else f"the only {given.removesuffix('s')} cannot"
    name, reason = next(iter(skipped.items()))
    return InputError(f"{printable(where)}: {count} be used ({name}: {reason.rstrip('.')}); {cure}.")


def _read(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except InputError as problem:
        raise Unusable(f"unreadable: {printable(str(problem))}") from problem
