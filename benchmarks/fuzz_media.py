"""Photos, clips and captions: good samples, how the scans of both sides read them, and what right pixels and captions are."""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from dualreal_core.dataset import scan_identity, scan_motion

SIZE = (64, 96)

Sample = tuple[str, bytes]
"""File name and content."""


def photos(kind: str) -> Sequence[Sample]:
    values = numpy.random.default_rng(0).integers(0, 256, (12, 16, 4), dtype=numpy.uint8)
    values[..., 3] |= 128
    picture = Image.fromarray(values).resize((128, 96))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb, grey = picture.convert("RGB"), picture.convert("L")
    animation = {"save_all": True, "append_images": [picture.rotate(90)]}
    variants = {
        "png": [(rgb, {}), (picture, {}), (picture.convert("P"), {}), (picture.convert("I;16"), {}), (grey, {"exif": exif})],
        "jpeg": [(rgb, {}), (rgb, {"progressive": True, "exif": exif}), (picture.convert("CMYK"), {}), (grey, {})],
        "webp": [(rgb, {}), (picture, {"lossless": True}), (rgb, {"exif": exif}), (picture, animation)],
    }
    samples = []
    for image, options in variants[kind]:
        file = io.BytesIO()
        image.save(file, kind, **options)
        samples.append((f"photo.{kind}", file.getvalue()))
    return samples


def read_photo(path: Path) -> object:
    manifest = scan_identity(path.parent, "a dog *", SIZE)
    return [item.pixels() for item in manifest.items]


CODECS = {
    "mp4": (["-c:v", "libx264", "-pix_fmt", "yuv420p"], ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-bf", "0"]),
    "mkv": (["-c:v", "libx264", "-pix_fmt", "yuv420p"], ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
    "avi": (["-c:v", "mpeg4"], ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]),
    "mov": (["-c:v", "mpeg4"],),
    "webm": (["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"],),
    "gif": ([],),
}


def clips(suffix: str) -> Sequence[Sample]:
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for codec in CODECS[suffix]:
            path = Path(folder) / f"clip.{suffix}"
            command = [get_ffmpeg_exe(), "-y", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=128x96:rate=8:duration=1.5", *codec]
            command += ["-threads", "1", "-fflags", "+bitexact"]
            subprocess.run([*command, str(path)], check=True)
            samples.append((path.name, path.read_bytes()))
    return samples


def read_clip(path: Path) -> object:
    manifest = scan_motion(path.parent, "a man dances", SIZE, 9, 8.0)
    return [item.pixels() for item in manifest.items]


def pixel_fault(expected: object, got: object) -> str | None:
    if not got:
        return "no sample and no error"
    for frames, subject in got:
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (*SIZE, 3):
            return f"frames of shape {tuple(frames.shape)}"
        if not (frames.isfinite().all() and frames.min() >= 0 and frames.max() <= 1):
            return "values outside 0 to 1"
        if subject is not None and subject.shape != frames.shape[:3]:
            return f"a mask of shape {tuple(subject.shape)}"
    return None


CAPTIONS = {
    "photo.txt": "a dog * on the grass\n",
    "prompts.txt": "a dog * runs\n\na dog * lies down, asleep\n",
    "videos.txt": "photo.png\n\nother.png\n",
}


def read_captions(path: Path) -> object:
    for name, content in photos("png")[:1]:
        (path.parent / name).write_bytes(content)
    if path.name != "photo.txt":
        for name in ("prompts.txt", "videos.txt"):
            if name != path.name:
                (path.parent / name).write_text(CAPTIONS[name])
    return [item.caption for item in scan_identity(path.parent, None, SIZE).items]


def caption_fault(expected: object, got: object) -> str | None:
    if not got:
        return "no sample and no error"
    odd = next((caption for caption in got if not caption.strip() or "\0" in caption or "\ufffd" in caption), None)
    return None if odd is None else f"the caption {odd!r}"
