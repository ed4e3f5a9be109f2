"""What the metrics measure with and on: the models at hand, the references, and one video, each seen by a model at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ..video import Clip
from .flow import dynamic_degree_per_pair, flow_course, sampled_frames
from .motion import thinned

if TYPE_CHECKING:  # transformers takes seconds to import, and not every run has a model
    from .encoders import ClipEncoder, DinoEncoder, ImageEncoder
    from .raft import Raft


@dataclass(frozen=True)
class Models:
    """None where the user named no such model."""

    clip: ClipEncoder | None = None
    dino: DinoEncoder | None = None
    raft: Raft | None = None

    @property
    def patches(self) -> ImageEncoder | None:
        """Whose patch tokens the motion fidelity follows: DINO's where there is one, else CLIP's."""
        return self.dino or self.clip


class References:
    """Photos of the identity and clips of the motion, encoded when first asked for."""

    def __init__(self, models: Models, photos: Sequence[torch.Tensor], clips: Sequence[Clip], num_frames: int) -> None:
        """
        Args:
            photos: (3, H, W) uint8 each.
            num_frames: of each clip, evenly spread, that the motion fidelity sees.
        """
        self.models, self.photos, self.clips, self._num_frames = models, photos, clips, num_frames
        self._courses: dict[tuple[int, int], torch.Tensor] = {}

    @cached_property
    def clip_embeddings(self) -> torch.Tensor:
        """(R, D)"""
        return torch.cat([self.models.clip.embed(photo[None]) for photo in self.photos])

    @cached_property
    def dino_embeddings(self) -> torch.Tensor:
        """(R, D)"""
        return torch.cat([self.models.dino.embed(photo[None]) for photo in self.photos])

    @cached_property
    def tokens(self) -> list[torch.Tensor]:
        """(F, h, w, D) per clip."""
        return [self.models.patches.tokens(thinned(clip.frames, self._num_frames)) for clip in self.clips]

    def course(self, index: int, num_frames: int) -> torch.Tensor:
        """`flow_course` of a clip."""
        if (index, num_frames) not in self._courses:
            self._courses[index, num_frames] = flow_course(self.clips[index].frames, num_frames, self.models.raft)
        return self._courses[index, num_frames]

    @cached_property
    def dynamic_degrees(self) -> list[float]:
        """Mean dynamic degree of each clip, in px of its own."""
        degrees = [torch.tensor(dynamic_degree_per_pair(sampled_frames(clip.frames, clip.fps), self.models.raft)) for clip in self.clips]
        return [float(degree.mean()) for degree in degrees]

    def dynamic_degree(self, short_side: int) -> float:
        """Mean over the clips, in px of a video with that short side."""
        sides = [min(clip.frames.shape[2:]) for clip in self.clips]
        return sum(degree * short_side / side for degree, side in zip(self.dynamic_degrees, sides, strict=True)) / len(sides)


class VideoMaterial:
    """One video, encoded when first asked for."""

    def __init__(self, models: Models, clip: Clip, prompt: str | None, num_motion_frames: int) -> None:
        """
        Args:
            prompt: what the video is to show; None where it is not known.
            num_motion_frames: evenly spread, that the motion fidelity sees.
        """
        self.models, self.frames, self.fps, self.prompt = models, clip.frames, clip.fps, prompt
        self._num_motion_frames = num_motion_frames
        self._courses: dict[int, torch.Tensor] = {}

    @cached_property
    def clip_embeddings(self) -> torch.Tensor:
        """(F, D)"""
        return self.models.clip.embed(self.frames)

    @cached_property
    def dino_embeddings(self) -> torch.Tensor:
        """(F, D)"""
        return self.models.dino.embed(self.frames)

    @cached_property
    def tokens(self) -> torch.Tensor:
        """(F', h, w, D)"""
        return self.models.patches.tokens(thinned(self.frames, self._num_motion_frames))

    def course(self, num_frames: int) -> torch.Tensor:
        """`flow_course` of the video."""
        if num_frames not in self._courses:
            self._courses[num_frames] = flow_course(self.frames, num_frames, self.models.raft)
        return self._courses[num_frames]

    def prompt_likeness(self) -> list[float]:
        """Cosine of the prompt with each frame."""
        return functional.cosine_similarity(self.clip_embeddings, self.models.clip.embed_text(self.prompt)[None]).tolist()
