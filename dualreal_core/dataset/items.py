"""Training samples that are not loaded yet: a view of a photo, a pan over a photo, a window of a clip."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..video import decode_frames
from .crops import CropSettings, pan_places, still_place
from .photos import open_photo


@dataclass(frozen=True)
class PhotoItem:
    """Attributes:
        fingerprint: sha256 of the file.
        kind: 'still' (one frame) or 'pan' (`views.num_clip_frames` frames).
        window: (view index, number of frames).
        size: (height, width) of the frames.
    """

    path: Path
    caption: str
    fingerprint: str
    kind: Literal["still", "pan"]
    window: tuple[int, int]
    size: tuple[int, int]
    views: CropSettings

    @property
    def num_frames(self) -> int:
        return self.window[1]

    @property
    def source(self) -> str:
        return f"{self.path.name} {self.kind} {self.window[0]}"

    def settings_key(self) -> str:
        """Everything besides file and caption that decides the frames."""
        return json.dumps([self.kind, self.window, self.size, self.views.margin])

    def load(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Frames (F, 3, H, W) in [-1, 1] and subject mask (F, 1, H, W), None where the photo is opaque."""
        height, width = self.size
        canvas = self.views.canvas(self.size)
        slack = canvas[0] - height, canvas[1] - width
        view, num_frames = self.window
        if self.kind == "still":
            places = [still_place(slack, self.fingerprint, view)]
        else:
            places = pan_places(slack, self.fingerprint, view, num_frames)
        picture, subject = open_photo(self.path).cover(canvas).tensors()

        def crop(pixels: torch.Tensor) -> torch.Tensor:
            return torch.stack([pixels[:, top : top + height, left : left + width] for top, left in places])

        return crop(picture), None if subject is None else crop(subject)


@dataclass(frozen=True)
class ClipItem:
    """Attributes:
        fingerprint: sha256 of the file.
        window: (first frame, number of frames) in the clip resampled to `fps`.
        indices: the frames of the file that the window shows.
        size: (height, width) of the frames.
    """

    path: Path
    caption: str
    fingerprint: str
    window: tuple[int, int]
    indices: tuple[int, ...]
    size: tuple[int, int]
    fps: float
    kind: Literal["clip"] = "clip"

    @property
    def num_frames(self) -> int:
        return self.window[1]

    @property
    def source(self) -> str:
        return f"{self.path.name} frames {self.window[0]}-{sum(self.window) - 1}"

    def settings_key(self) -> str:
        """Everything besides file and caption that decides the frames."""
        return json.dumps([self.kind, self.window, self.size, self.fps])

    def load(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Frames (F, 3, H, W) in [-1, 1]; clips have no subject mask."""
        return decode_frames(self.path, self.indices, self.size).float() / 127.5 - 1, None


Item = PhotoItem | ClipItem
