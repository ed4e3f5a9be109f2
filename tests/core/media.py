"""Pictures, clips and a base that encodes by averaging, for the tests of datasets."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
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


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: bytes) -> bytes:
    """A PNG of unfiltered rows, each with its zero byte in front; `chunks` stand before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *chunks, pixels, png_chunk(b"IEND", b"")])


DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""XYZ of red, green and blue under the white of profiles, D50."""


def icc_profile(name: str, gamma: float, primaries: Sequence[Sequence[float]] = ()) -> bytes:
    """An ICC profile: of RGB with these primaries, of grey without."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    if not primaries:
        return pack_profile(name, b"GRAY", b"XYZ ", {b"kTRC": curve})
    colours = {letter + b"XYZ": b"XYZ " + bytes(4) + fixed(*xyz) for letter, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)}
    return pack_profile(name, b"RGB ", b"XYZ ", colours | {letter + b"TRC": curve for letter in (b"r", b"g", b"b")})


def ink_profile(name: str) -> bytes:
    """An ICC profile of CMYK: paper is white, cyan, magenta and yellow take 48 of 255 off its lightness each, black takes all."""
    inks = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    table = b"".join(bytes([0 if k else 255 - 48 * (c + m + y), 128, 128]) for c, m, y, k in inks)
    straight, unit = bytes(range(256)), fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + straight * 4 + table + straight * 3
    return pack_profile(name, b"CMYK", b"Lab ", {b"A2B0": lut, b"A2B1": lut})


def pack_profile(name: str, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    label, white = name.encode() + b"\0", fixed(0.9642, 1.0, 0.8249)
    described = b"desc" + struct.pack(">II", 0, len(label)) + label + bytes(78)
    tags = {b"desc": described, b"wtpt": b"XYZ " + bytes(4) + white, **tags}
    table, content, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for kind, value in tags.items():
        table += struct.pack(">4sII", kind, place + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(">I4sI4s4s4s", place + len(content), bytes(4), 0x02400000, kind, space, connection)
    return (header + bytes(12) + b"acsp" + bytes(28) + white).ljust(128, b"\0") + table + content


def fixed(*values: float) -> bytes:
    """ICC's numbers."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def linear_to(primaries: Sequence[Sequence[float]], gamma: float, linear_srgb: numpy.ndarray) -> numpy.ndarray:
    """8-bit values of a space for colours (..., 3) in linear sRGB, by float arithmetic; what the space cannot hold is cut off."""
    to_space = numpy.linalg.inv(numpy.array(primaries).T) @ numpy.array(SRGB).T
    return ((linear_srgb @ to_space.T).clip(0, 1) ** (1 / gamma) * 255).round().astype(numpy.uint8)


def make_clip(path: Path, num_frames: int, fps: float, height: int = 256, width: int = 384) -> Path:
    """Frame i is a grey of level i, so that what was read tells which frames were chosen."""
    levels = torch.arange(num_frames).float() / max(1, num_frames - 1) * 1.6 - 0.8
    frames = levels[:, None, None, None].expand(num_frames, 3, height, width)
    (write_gif if path.suffix == ".gif" else write_mp4)(path, frames, fps)
    return path


def reasons(manifest: Manifest) -> dict[str, str]:
    return manifest.report.skipped
