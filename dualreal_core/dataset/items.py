"""Training samples that are not loaded yet, and where they come from: a photo or clip that is decoded when it is asked for."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..video import ClipProbe
from .photos import Photo
from .sizes import Size

Pixels = tuple[torch.Tensor, torch.Tensor | None]
"""Frames (F, H, W, 3) and share of the subject (F, H, W), both in [0, 1]; None where the whole picture counts."""


class Source(ABC):
    """Attributes:
        name: for people; no other source of a set has it.
        caption: asking for it raises InputError where there is none.
    """

    name: str
    caption: str

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 of the content; raises Unusable where it cannot be read."""

    @abstractmethod
    def frames(self, indices: Sequence[int], size: Size) -> Pixels:
        """These frames, cut to `size`."""


class PhotoSource(Source):
    """A clip of one frame."""

    @abstractmethod
    def open(self) -> Photo:
        """Raises InputError where it cannot be read, Unusable where nothing of it counts."""

    def frames(self, indices: Sequence[int], size: Size) -> Pixels:
        photo = self.open().cover(size)
        return photo.picture[None], None if photo.subject is None else photo.subject[None]


class ClipSource(Source):
    """A clip of several frames."""

    @abstractmethod
    def probe(self) -> ClipProbe:
        """Raises InputError where it cannot be read."""


@dataclass(frozen=True)
class Item:
    """A crop of a photo or a segment of a clip.

    Attributes:
        fingerprint: of the source.
        indices: the frames of the source that it shows.
        canvas: (height, width) that these are cut to.
        place: (top, left) in the canvas of what is shown.
        size: (height, width) of that.
        part: it in words.
        settings: everything besides content and caption that decides the frames.
        fps: frames per second that it shows a clip at, 0 of a photo.
    """

    source: Source
    caption: str
    fingerprint: str
    indices: Sequence[int]
    canvas: Size
    place: tuple[int, int]
    size: Size
    part: str
    settings: tuple[object, ...]
    fps: float = 0.0

    @property
    def name(self) -> str:
        """For people, without folders."""
        return f"{self.source.name.rpartition('/')[2]} {self.part}"

    @property
    def num_frames(self) -> int:
        """1 of a photo, more of a clip."""
        return len(self.indices)

    def settings_key(self) -> str:
        """The settings as a part of cache keys."""
        return json.dumps(self.settings)

    def pixels(self) -> Pixels:
        """As ComfyUI takes them."""
        frames, subject = self.source.frames(self.indices, self.canvas)
        (top, left), (height, width) = self.place, self.size
        place = slice(None), slice(top, top + height), slice(left, left + width)
        return frames[place].contiguous(), None if subject is None else subject[place].contiguous()

    def load(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As a `Base` takes them: frames (F, 3, H, W) in [-1, 1] and share of the subject (F, 1, H, W)."""
        frames, subject = self.pixels()
        return frames.permute(0, 3, 1, 2).contiguous() * 2 - 1, None if subject is None else subject[:, None]
