"""What the metrics measure with and on: the models at hand, one video, and the references, each seen by a model at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .flow import dynamic_degree_per_pair, flow_field, sampled_frames
from .motion import MAX_FRAMES, thinned

if TYPE_CHECKING:  # transformers takes seconds to import, and not every run has a model
    from .encoders import ClipEncoder, DinoEncoder, ImageEncoder
    from .raft import Raft


@dataclass(frozen=True)
class Models:
    """None where the user named no such model. The node has its CLIP_VISION in the place of `clip`, whatever encoder that is."""

    clip: ClipEncoder | None = None
    dino: DinoEncoder | None = None
    raft: Raft | None = None

    @property
    def patches(self) -> ImageEncoder | None:
        """Whose patch tokens the motion fidelity follows: DINO's where there is one, else CLIP's."""
        return self.dino or self.clip


@dataclass(eq=False)
class VideoFeatures:
    """One video, encoded when first asked for.

    Attributes:
        frames: (F, 3, H, W) uint8
        fps: None where it is not known and no flow is measured.
        prompt: what the video is to show; None where it is not known.
        num_motion_frames: evenly spread, that the motion fidelity sees.
        encoder_frames: the same frames as the image encoder takes them, (F, ...); None where that is as bytes.
    """

    models: Models
    frames: torch.Tensor
    fps: float | None = None
    prompt: str | None = None
    num_motion_frames: int = MAX_FRAMES
    encoder_frames: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.encoder_frames is None:
            self.encoder_frames = self.frames
        self._flow_fields: dict[int, torch.Tensor] = {}

    @classmethod
    def of_images(cls, models: Models, images: torch.Tensor) -> VideoFeatures:
        """Of a video as ComfyUI has it and its image encoders take it: (F, H, W, 3) in [0, 1]."""
        return cls(models, to_bytes(images), encoder_frames=images)

    @cached_property
    def clip_embeddings(self) -> torch.Tensor:
        """(F, D)"""
        return self.models.clip.embed(self.encoder_frames)

    @cached_property
    def dino_embeddings(self) -> torch.Tensor:
        """(F, D)"""
        return self.models.dino.embed(self.encoder_frames)

    @cached_property
    def tokens(self) -> torch.Tensor:
        """(F', h, w, D)"""
        return self.models.patches.tokens(thinned(self.encoder_frames, self.num_motion_frames))

    @cached_property
    def dynamic_degrees(self) -> list[float]:
        """`dynamic_degree_per_pair`, in px of the video."""
        return dynamic_degree_per_pair(sampled_frames(self.frames, self.fps), self.models.raft)

    def flow_field(self, num_frames: int) -> torch.Tensor:
        """`flow.flow_field` of the video."""
        if num_frames not in self._flow_fields:
            self._flow_fields[num_frames] = flow_field(self.frames, num_frames, self.models.raft)
        return self._flow_fields[num_frames]


@dataclass(eq=False)
class References:
    """Photos of the identity, encoded when first asked for, and videos of the motion.

    Attributes:
        photos: as the image encoder takes them, one or more of a size each: (N, 3, H, W) uint8 for those of `encoders`.
    """

    models: Models
    photos: Sequence[torch.Tensor]
    videos: Sequence[VideoFeatures]

    @cached_property
    def clip_embeddings(self) -> torch.Tensor:
        """(R, D)"""
        return torch.cat([self.models.clip.embed(photo) for photo in self.photos])

    @cached_property
    def dino_embeddings(self) -> torch.Tensor:
        """(R, D)"""
        return torch.cat([self.models.dino.embed(photo) for photo in self.photos])

    @cached_property
    def dynamic_degrees(self) -> list[float]:
        """Mean dynamic degree of each video, in px of its own."""
        return [float(torch.tensor(video.dynamic_degrees).mean()) for video in self.videos]

    def dynamic_degree(self, short_side: int) -> float:
        """Mean over the videos, in px of a video with that short side."""
        sides = [min(video.frames.shape[2:]) for video in self.videos]
        return sum(degree * short_side / side for degree, side in zip(self.dynamic_degrees, sides, strict=True)) / len(sides)


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """(F, H, W, 3) in [0, 1] -> (F, 3, H, W) uint8"""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-1, 1)
