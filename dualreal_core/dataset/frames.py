"""Training samples from pictures and clips that are already decoded, by the rules of the folder scans.

Pixels are float in [0, 1], channels last, as image editors and ComfyUI pass them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..errors import InputError
from .crops import CropSettings, pan_places, still_place
from .photos import Photo, Thumbnail, make_thumbnail
from .pixels import cover, fit_mask, split_alpha, to_image
from .report import Report, Skipped, nothing_usable
from .segments import TooShort, find_segments
from .sizes import Size, TrainingSize, crop_note, enlargement_note, too_small

PHOTO_CURE = "wire larger or whole pictures"
CLIP_CURE = "wire whole clips of a size and length that suit, or ask for fewer frames"
NOT_FINITE = "not finite: some of its pixels are NaN or infinite"


@dataclass(frozen=True)
class FrameSample:
    """Attributes:
        frames: (F, H, W, 3).
        mask: (F, H, W) share of the subject; None where the whole picture counts.
        source: picture or clip and what part of it, for people.
        file: the picture or clip alone.
    """

    frames: torch.Tensor
    mask: torch.Tensor | None
    caption: str
    source: str
    file: str


@dataclass
class FrameSet:
    """Grows clip by clip or picture by picture, so that only what is used stays in memory."""

    role: str
    given: str
    training_size: TrainingSize
    used: list[str] = field(init=False, default_factory=list)
    skipped: list[Skipped] = field(init=False, default_factory=list)
    notes: list[str] = field(init=False, default_factory=list)
    seen: dict[str, str] = field(init=False, default_factory=dict)
    shapes: dict[tuple[int, ...], int] = field(init=False, default_factory=dict)

    def skip(self, name: str, reason: str) -> None:
        self.skipped.append(Skipped(name, reason))

    def note(self, note: str | None) -> None:
        if note is not None:
            self.notes.append(note)

    def report(self, where: str, cure: str) -> Report:
        """Raises:
        InputError: nothing was usable.
        """
        if not self.used:
            raise nothing_usable(where, self.skipped, self.given, cure)
        shapes = [f"{_shape_name(shape)}: {count} samples" for shape, count in self.shapes.items()]
        notes = (*shapes, *self.training_size.notes(), *self.notes)
        num_items = sum(self.shapes.values())
        return Report(self.role, "", tuple(self.used), num_items, tuple(self.skipped), notes, self.given)

    def fingerprint(self, name: str, *tensors: torch.Tensor | None) -> str | None:
        """sha256 of the values; None, with the reason noted, for a second copy."""
        digest = hashlib.sha256()
        for tensor in tensors:
            if tensor is not None:
                digest.update(f"{tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy())
        first = self.seen.setdefault(digest.hexdigest(), name)
        if first != name:
            self.skip(name, f"exact duplicate of {first}")
            return None
        return digest.hexdigest()

    def canvas(self, name: str, picture: Size, margin: float = 0.0) -> tuple[Size, Size] | None:
        """Canvas and training size of a picture; None, with the reason noted, where it is too small."""
        canvas, size = self.training_size.fit(picture, margin)
        multiple = self.training_size.multiple
        reason = too_small(picture, size) if min(size) else f"too small: {picture[1]}x{picture[0]} px hold no {multiple}x{multiple} px"
        if reason is not None:
            self.skip(name, reason)
            return None
        self.note(enlargement_note(name, picture, canvas))
        self.note(crop_note(name, picture, canvas))
        return canvas, size

    def valid_length(self, num_frames: int, frame_multiple: int) -> int:
        """The longest length up to `num_frames` that the VAE takes, noted where it is another."""
        valid = (num_frames - 1) // frame_multiple * frame_multiple + 1
        if valid != num_frames:
            self.note(f"{num_frames} frames do not fit the VAE, which takes {frame_multiple} * k + 1: {valid} are used")
        return valid

    def add(self, name: str, samples: Sequence[FrameSample]) -> list[FrameSample]:
        self.used.append(name)
        for sample in samples:
            shape = tuple(sample.frames.shape[:3])
            self.shapes[shape] = self.shapes.get(shape, 0) + 1
        return list(samples)


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


def cut_photos(
    pictures: Sequence[torch.Tensor],
    captions: Sequence[str],
    masks: Sequence[torch.Tensor] | None,
    training_size: TrainingSize,
    views: CropSettings,
    frame_multiple: int = 1,
) -> tuple[list[FrameSample], Report]:
    """Views of pictures: one-frame samples, and panning clips where the views ask for them.

    pictures: (H, W, 1, 3 or 4); alpha is the subject, and neutral grey shows through it.
    masks: (H, W), 1 on the subject, one per picture; where alpha is present too, both must hold.
    frame_multiple: clips are shortened to a multiple of this many frames, and one.

    Raises:
        InputError: nothing usable, a mask that cannot belong to its picture, or clips too short for the VAE.
    """
    photos = FrameSet("identity", "images", training_size)
    if masks is not None and len(masks) != len(pictures):
        raise InputError(f"images holds {len(pictures)} and masks {len(masks)}; give one mask per image, or none.")
    if 1 < views.num_clip_frames <= frame_multiple:
        raise InputError(f"clip_frames is {views.num_clip_frames}, and a clip needs at least {frame_multiple + 1} with this VAE; raise it.")
    num_frames = photos.valid_length(views.num_clip_frames, frame_multiple)
    samples: list[FrameSample] = []
    thumbnails: dict[str, Thumbnail] = {}
    num_masks = 0
    for index, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        name = f"image {index + 1}"
        mask = None if masks is None else fit_mask(masks[index], pixels.shape[:2], name)
        fingerprint = _check_photo(photos, name, pixels, mask)
        fitted = photos.canvas(name, pixels.shape[:2], views.margin) if fingerprint else None
        if fingerprint is None or fitted is None:
            continue
        picture, subject = split_alpha(pixels.float(), mask)
        thumbnail = make_thumbnail(Photo(to_image(picture), None))
        twin = next((other for other, seen in thumbnails.items() if seen.is_near(thumbnail)), None)
        if twin is not None:
            photos.skip(name, f"near-identical to {twin}")
            continue
        thumbnails[name] = thumbnail
        num_masks += subject is not None
        samples += photos.add(name, _views(picture, subject, caption, name, fitted, _places(fitted, fingerprint, views, num_frames)))
    if num_masks:
        photos.note(f"{num_masks} images carry a subject mask")
    return samples, photos.report("Identity Dataset", PHOTO_CURE)


@dataclass
class ClipCutter(FrameSet):
    """Windows of clips, resampled by time; give it one clip after another and ask for the report at the end.

    Attributes:
        num_frames: wanted length of a window, rounded down to frame_multiple * k + 1.
        fps: frames per second; 0 keeps each clip's own.
    """

    num_frames: int = 49
    fps: float = 0.0
    max_segments: int = 4
    frame_multiple: int = 1
    num_resampled: int = field(init=False, default=0)
    shortened: dict[int, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_frames < self.frame_multiple + 1:
            raise InputError(f"frames is {self.num_frames}, and motion needs at least {self.frame_multiple + 1} with this VAE; raise it.")
        self.num_frames = self.valid_length(self.num_frames, self.frame_multiple)

    def cut(self, name: str, frames: torch.Tensor, rate: float, caption: str) -> list[FrameSample]:
        """frames: (F, H, W, C) at `rate` frames per second -> samples, none where the clip is skipped."""
        fps = self.fps or rate
        times = [index / rate for index in range(len(frames))]
        try:
            windows = find_segments(times, len(frames) / rate, fps, self.num_frames, self.max_segments, self.frame_multiple)
        except TooShort as problem:
            self.skip(name, str(problem))
            return []
        fitted = self.canvas(name, frames.shape[1:3])
        if fitted is None:
            return []
        needed = sorted({index for start in windows.starts for index in windows.indices(start)})
        if not all(frames[index].isfinite().all() for index in needed):
            self.skip(name, NOT_FINITE)
            return []
        shown = torch.cat([cover(frames[index : index + 1, ..., :3].float(), fitted[1]) for index in needed])  # (N, h, w, 3)
        if self.fingerprint(name, shown) is None:
            return []
        if windows.length < self.num_frames:
            self.shortened.setdefault(windows.length, []).append(name)
        self.num_resampled += abs(rate - fps) > 0.01 * fps
        places = {index: place for place, index in enumerate(needed)}
        samples = []
        for start in windows.starts:
            chosen = [places[index] for index in windows.indices(start)]
            is_run = chosen == list(range(chosen[0], chosen[0] + windows.length))
            window = shown[chosen[0] : chosen[-1] + 1] if is_run else shown[chosen]  # a run shares memory with the clip
            samples.append(FrameSample(window, None, caption, f"{name} frames {start}-{start + windows.length - 1}", name))
        return self.add(name, samples)

    def report(self, where: str, cure: str) -> Report:
        """Raises:
        InputError: nothing was usable.
        """
        for length, names in self.shortened.items():
            self.note(f"used at {length} frames instead of {self.num_frames}, being short: {', '.join(names)}")
        if self.num_resampled:
            self.note(f"{self.num_resampled} clips are resampled to {self.fps:g} fps at their true speed")
        return super().report(where, cure)


def _check_photo(photos: FrameSet, name: str, pixels: torch.Tensor, mask: torch.Tensor | None) -> str | None:
    """The picture's fingerprint; None, with the reason noted, where it cannot be used."""
    if pixels.shape[-1] not in (1, 3, 4):
        photos.skip(name, f"unreadable: it has {pixels.shape[-1]} channels instead of 1, 3 or 4")
    elif not pixels.isfinite().all() or (mask is not None and not mask.isfinite().all()):
        photos.skip(name, NOT_FINITE)
    elif pixels.shape[-1] == 4 and pixels[..., 3].max() <= 0:
        photos.skip(name, "empty: every pixel is transparent")
    elif mask is not None and mask.max() <= 0:
        photos.skip(name, "empty: its mask marks no subject (a Load Image mask is 1 where transparent, so put Invert Mask behind it)")
    else:
        return photos.fingerprint(name, pixels.float(), mask)
    return None


def _places(fitted: tuple[Size, Size], fingerprint: str, views: CropSettings, num_frames: int) -> dict[str, list[tuple[int, int]]]:
    """(top, left) of every frame of every view, by the view's name."""
    canvas, (height, width) = fitted
    slack = canvas[0] - height, canvas[1] - width
    places = {f"view {view + 1}": [still_place(slack, fingerprint, view)] for view in range(views.num_crops)}
    if num_frames > 1:
        places |= {f"pan {view + 1}": pan_places(slack, fingerprint, view, num_frames) for view in range(views.num_crops)}
    return places


def _views(
    picture: torch.Tensor,
    subject: torch.Tensor | None,
    caption: str,
    name: str,
    fitted: tuple[Size, Size],
    places: dict[str, list[tuple[int, int]]],
) -> list[FrameSample]:
    canvas, (height, width) = fitted
    picture = cover(picture[None], canvas)[0]  # (H, W, 3)
    subject = None if subject is None else cover(subject[None, ..., None], canvas)[0, ..., 0]  # (H, W)

    def crop(pixels: torch.Tensor, path: list[tuple[int, int]]) -> torch.Tensor:
        return torch.stack([pixels[top : top + height, left : left + width] for top, left in path])

    return [
        FrameSample(crop(picture, path), None if subject is None else crop(subject, path), caption, f"{name} {view}", name)
        for view, path in places.items()
    ]


def _shape_name(shape: tuple[int, ...]) -> str:
    frames, height, width = shape
    return f"{width}x{height} px" if frames == 1 else f"{frames} frames of {width}x{height} px"
