"""Photos and clips that are already decoded: float in [0, 1], channels last, as image editors and ComfyUI pass them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..video import ClipProbe
from .crops import CropSettings
from .items import ClipSource, Item, PhotoSource, Pixels
from .photos import Photo
from .pixels import fit_mask, split_alpha
from .report import Report, Unusable, counted
from .selection import ClipSelection, PhotoSelection, Selection
from .sizes import Size, TrainingSize

PHOTO_CURE = "wire larger or whole pictures"
CLIP_CURE = "wire whole clips of a size and length that suit, or ask for fewer frames"
LOST_FRAMES = 0.05
"""Share of the promised frames that may be missing, besides two: headers are not exact."""


@dataclass(frozen=True)
class DecodedPhoto(PhotoSource):
    """Attributes:
        values: (H, W, 1, 3 or 4); alpha is the subject, and neutral grey shows through it.
        mask: (H, W), 1 on the subject; where alpha is present too, both must hold.
    """

    name: str
    caption: str
    values: torch.Tensor
    mask: torch.Tensor | None = None

    def fingerprint(self) -> str:
        if not self.values.numel():
            raise Unusable("unreadable: it has no pixels")
        if self.values.shape[-1] not in (1, 3, 4):
            raise Unusable(f"unreadable: it has {self.values.shape[-1]} channels instead of 1, 3 or 4")
        return _digest(self.values.float(), *([] if self.mask is None else [self.mask]))

    def open(self) -> Photo:
        if self.mask is not None and self.mask.max() <= 0:
            raise Unusable("empty: its mask marks no subject (a Load Image mask is 1 where transparent, so put Invert Mask behind it)")
        return Photo(*split_alpha(self.values.float(), self.mask))


@dataclass(frozen=True)
class DecodedClip(ClipSource):
    """Attributes:
        values: (F, H, W, 1, 3 or 4); alpha is the subject, and neutral grey shows through it.
        fps: of all these frames.
        num_promised: how many of them its file promised, 0 where that is not known.
    """

    name: str
    caption: str
    values: torch.Tensor
    fps: float
    num_promised: int = 0

    def fingerprint(self) -> str:
        if not len(self.values) or self.fps <= 0:
            raise Unusable("unreadable: no frame of it could be decoded")
        if self.values.shape[-1] not in (1, 3, 4):
            raise Unusable(f"unreadable: it has {self.values.shape[-1]} channels instead of 1, 3 or 4")
        if len(self.values) < self.num_promised * (1 - LOST_FRAMES) - 2:
            raise Unusable(f"damaged: only {len(self.values)} of {self.num_promised} frames could be decoded")
        return _digest(self.values)

    def probe(self) -> ClipProbe:
        interval = 1 / self.fps if self.fps > 0 else 1.0
        times = tuple(index * interval for index in range(len(self.values)))
        return ClipProbe(times, len(times) * interval, *self.values.shape[1:3])

    def frames(self, indices: Sequence[int], size: Size) -> Pixels:
        photos = [Photo(*split_alpha(self.values[index].float(), None)).cover(size) for index in indices]
        pictures = torch.stack([photo.picture for photo in photos])
        if all(photo.subject is None for photo in photos):
            return pictures, None
        return pictures, torch.stack([torch.ones(size) if photo.subject is None else photo.subject for photo in photos])


def cut_photos(
    pictures: Sequence[torch.Tensor],
    captions: Sequence[str],
    masks: Sequence[torch.Tensor] | None,
    size: TrainingSize,
    crops: CropSettings,
    names: Sequence[str] | None = None,
) -> tuple[list[Item], Report]:
    """Crops of pictures; for pictures and masks see `DecodedPhoto`.

    names: for people; 'image 1' and so on without.

    Raises:
        InputError: nothing usable, or a mask that cannot belong to its picture.
    """
    if masks is not None and len(masks) != len(pictures):
        raise InputError(f"images holds {len(pictures)} and masks {len(masks)}; give one mask per image, or none.")
    chosen = PhotoSelection("images", size, crops)
    items: list[Item] = []
    names = names or [f"image {number}" for number in range(1, len(pictures) + 1)]
    for index, (name, values, caption) in enumerate(zip(names, pictures, captions, strict=True)):
        mask = None if masks is None else fit_mask(masks[index], values.shape[:2], name)
        items += chosen.add(DecodedPhoto(name, caption, values, mask))
    notes = [*_shapes(chosen), *chosen.notes, *chosen.framing]
    notes += chosen.mask_notes()
    return items, chosen.report("Identity Dataset", PHOTO_CURE, notes)


def clips_report(chosen: ClipSelection) -> Report:
    """What became of decoded clips.

    Raises:
        InputError: nothing was usable.
    """
    notes = [*_shapes(chosen), *chosen.notes, *chosen.framing]
    for length in dict.fromkeys(segments.length for segments in chosen.shortened.values()):
        names = ", ".join(name for name, segments in chosen.shortened.items() if segments.length == length)
        notes.append(f"used at {length} frames instead of {chosen.num_frames}, being short: {names}")
    return chosen.report("Motion Dataset", CLIP_CURE, [*notes, *chosen.rate_notes()])


def _shapes(chosen: Selection) -> list[str]:
    lines = []
    for (frames, height, width), count in chosen.shapes.items():
        length = f"{frames} frames of " if frames > 1 else ""
        lines.append(f"{length}{width}x{height} px: {counted(count, 'sample')}")
    return lines


def _digest(*parts: torch.Tensor) -> str:
    """sha256 of the values; raises Unusable where some are no numbers."""
    digest = hashlib.sha256()
    for part in parts:
        if not all(plane.isfinite().all() for plane in part):  # one by one, as clips are large
            raise Unusable("not finite: some of its pixels are NaN or infinite")
        digest.update(f"{tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy())
    return digest.hexdigest()
