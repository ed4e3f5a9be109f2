"""Pictures, clips and a base that encodes by averaging, for the tests of datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch
from PIL import Image

from dualreal_core.dataset import Manifest
from dualreal_core.video import write_gif, write_mp4

SIZE = (64, 96)
REAL_DATA = Path(__file__).parents[2].parent / "shared" / "data"


class FakeBase:
    """Encodes by averaging, deterministically, and counts how often it is asked."""

    name = "fake"
    latent_channels = 3
    size_multiple = 8
    fingerprint = "fake-1"

    def __init__(self, frame_multiple: int = 4, condition_dim: int | None = 6) -> None:
        self.frame_multiple = frame_multiple
        self.condition_dim = condition_dim
        self.is_loaded = False
        self.calls: list[str] = []

    @contextmanager
    def encoders(self) -> Iterator[None]:
        self.calls.append("load")
        self.is_loaded = True
        try:
            yield
        finally:
            self.is_loaded = False

    def encode_text(self, prompt: str) -> torch.Tensor:
        assert self.is_loaded
        self.calls.append("text")
        return torch.tensor([[float(ord(letter))] for letter in prompt], dtype=torch.bfloat16)

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        assert self.is_loaded
        self.calls.append("frames")
        pooled = torch.nn.functional.avg_pool2d(frames, 8)[:: self.frame_multiple]
        return pooled.transpose(0, 1).to(torch.bfloat16)

    def embed_image(self, frame: torch.Tensor) -> torch.Tensor:
        assert self.is_loaded
        self.calls.append("image")
        return torch.nn.functional.adaptive_avg_pool2d(frame, (1, 2)).flatten()

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        return 3, (num_frames - 1) // self.frame_multiple + 1, height // 8, width // 8


def noise(height: int, width: int, seed: int, channels: int = 3) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=numpy.uint8)


def blocks(height: int, width: int, seed: int) -> numpy.ndarray:
    """A 4x4 board of random colours: pictures that survive scaling and differ in their thumbnails."""
    return numpy.kron(noise(4, 4, seed), numpy.ones((-(-height // 4), -(-width // 4), 1), numpy.uint8))[:height, :width]


def save(path: Path, pixels: numpy.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def make_clip(path: Path, num_frames: int, fps: float, height: int = 256, width: int = 384) -> Path:
    """Frame i is a grey of level i, so that what was read tells which frames were chosen."""
    levels = torch.arange(num_frames).float() / max(1, num_frames - 1) * 1.6 - 0.8
    frames = levels[:, None, None, None].expand(num_frames, 3, height, width)
    (write_gif if path.suffix == ".gif" else write_mp4)(path, frames, fps)
    return path


def reasons(manifest: Manifest) -> dict[str, str]:
    return manifest.report.skipped
