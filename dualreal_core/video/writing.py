"""Writes videos that play everywhere, whole or not at all. Frames are (F, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import math
import subprocess
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from ..errors import InputError
from ..files.atomic import atomic_path
from . import ffmpeg

SMALLEST_SIDE_SHOWN = 256
SLOWEST_FPS, FASTEST_FPS = 0.1, 240.0
FASTEST_GIF_FPS = 50.0
"""GIF counts centiseconds, and players show a picture for a tenth of a second where a file says one of them."""


def check_fps(fps: float) -> None:
    """Raises InputError where no video of ours runs at that many frames per second."""
    if not SLOWEST_FPS <= fps <= FASTEST_FPS:
        raise InputError(f"The frame rate is {fps:g}; choose {SLOWEST_FPS:g} to {FASTEST_FPS:g} frames per second.")


def write_mp4(path: Path | str, frames: torch.Tensor, fps: float) -> None:
    """H.264 that plays everywhere: even sides, small pictures enlarged by a whole factor without smoothing.

    frames: (F, 3, H, W) in [-1, 1].

    Raises:
        InputError: the frame rate is out of range, or the file cannot be written.
    """
    check_fps(fps)
    pixels = _enlarge(_to_bytes(frames))
    pixels = torch.nn.functional.pad(pixels, (0, pixels.shape[3] % 2, 0, pixels.shape[2] % 2), mode="replicate")
    height, width = pixels.shape[2:]
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_path(path) as temporary, tempfile.TemporaryFile() as messages:
        command = [ffmpeg.executable(), "-hide_banner", "-nostats", "-loglevel", "level+error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
        command += ["-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-c:v", "libx264", "-crf", "14"]
        command += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-movflags", "+faststart"]
        command += ["-f", "mp4", f"file:{temporary.absolute()}"]
        process = ffmpeg.start(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages)
        try:
            for picture in pixels:
                process.stdin.write(picture.permute(1, 2, 0).contiguous().numpy().tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg gave up; its own message below says why
        except BaseException:
            process.kill()
            raise
        finally:
            status = process.wait()
        if status != 0:
            messages.seek(0)
            said = messages.read().decode(errors="replace")
            ffmpeg.check_options(said)
            raise OSError(next(iter(ffmpeg.complaints(said)), f"ffmpeg ended with status {status}"))


def write_gif(path: Path | str, frames: torch.Tensor, fps: float, enlarges: bool = True) -> float:
    """An endless GIF whose delays, whole centiseconds, add up to the true duration; `enlarges` small pictures.

    frames: (F, 3, H, W) in [-1, 1].

    Returns:
        Frames per second at which players show it: `fps`, or FASTEST_GIF_FPS.

    Raises:
        InputError: the frame rate is out of range, or the file cannot be written.
    """
    check_fps(fps)
    pixels = _enlarge(_to_bytes(frames)) if enlarges else _to_bytes(frames)
    pictures = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pixels]
    shown_fps = min(fps, FASTEST_GIF_FPS)
    ends = [round(100 * (index + 1) / shown_fps) for index in range(len(pictures))]
    delays = [10 * max(2, end - begin) for begin, end in pairwise([0, *ends])]
    with atomic_path(path) as temporary:
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=delays, loop=0)
    return shown_fps


def write_png(path: Path | str, frame: torch.Tensor) -> None:
    """frame: (3, H, W) in [-1, 1], written pixel for pixel."""
    pixels = _to_bytes(frame[None])[0]
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(temporary, format="PNG")


def _to_bytes(frames: torch.Tensor) -> torch.Tensor:
    """(F, 3, H, W) in [-1, 1] -> uint8."""
    if frames.ndim != 4 or frames.shape[1] != 3 or frames.shape[0] == 0:
        raise ValueError(f"frames have shape {tuple(frames.shape)}; (F, 3, H, W) with at least one frame is needed.")
    return ((frames.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _enlarge(pixels: torch.Tensor) -> torch.Tensor:
    """Repeats pixels until the longer side has at least SMALLEST_SIDE_SHOWN, by an even factor where a side is odd."""
    height, width = pixels.shape[2:]
    factor = math.ceil(SMALLEST_SIDE_SHOWN / max(height, width))
    if factor > 1 and (height % 2 or width % 2):
        factor += factor % 2
    return pixels.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
