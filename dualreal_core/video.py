"""Videos in and out through ffmpeg: damaged files are refused, never read in part.

Frames are uint8 (F, 3, H, W) when read and [-1, 1] when written.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from .errors import InputError
from .files.atomic import atomic_path

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".webm", ".mkv", ".gif")
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,gif"
SMALLEST_SIDE_SHOWN = 256
MAX_DECODED_BYTES = 4 * 2**30
PROBE_TIMEOUT_S = 1800
SLOWEST_FPS, FASTEST_FPS = 0.1, 240.0
CURE = "replace it or encode it anew, for example with: ffmpeg -i {name} -c:v libx264 new.mp4"


@dataclass(frozen=True)
class Clip:
    """frames: (F, 3, H, W) uint8; fps: mean frame rate of the file."""

    frames: torch.Tensor
    fps: float


@dataclass(frozen=True)
class ClipProbe:
    """What a full decode found, in the orientation and pixel aspect in which players show it.

    Attributes:
        times: seconds at which each frame appears, the first at 0.
        duration: seconds from the first frame's appearance to the last one's end.
    """

    times: tuple[float, ...]
    duration: float
    height: int
    width: int

    @property
    def num_frames(self) -> int:
        return len(self.times)

    @property
    def fps(self) -> float:
        return self.num_frames / self.duration


def probe_video(path: Path | str) -> ClipProbe:
    """Decodes the whole file without keeping a frame.

    Raises:
        InputError: missing, not a video, damaged, cut off, or without frames.
    """
    path = Path(path)
    _check_container(path)
    report, messages = _framecrc(path, ["-map", "0:v:0", "-vf", _display_shape(), "-fps_mode", "passthrough"])
    rows = _packet_rows(report)
    if not rows:
        raise InputError(f"{path} holds no video frames; {CURE.format(name=path.name)}.")
    width, height = map(int, re.search(r"#dimensions 0: (\d+)x(\d+)", report).groups())
    times = [start - rows[0][0] for start, _ in rows]
    mean_interval = times[-1] / (len(times) - 1) if times[-1] > 0 else 1 / 25
    duration = times[-1] + (rows[-1][1] or mean_interval)

    declared = re.search(r"Duration: (\d+):(\d+):([\d.]+), start: (-?[\d.]+)", messages)
    if declared:
        hours, minutes, seconds, start = map(float, declared.groups())
        promised = hours * 3600 + minutes * 60 + seconds
        tolerance = 3 * mean_interval + 0.02 * promised
        # where other containers promise a length, Matroska promises the second of its end
        begin = 0.0 if "Input #0, matroska" in messages else start
        if duration < promised - tolerance and _reach(path) - begin < promised - tolerance:
            raise InputError(f"{path} is cut off after {duration:.2f} s of {promised:.2f} s; {CURE.format(name=path.name)}.")
    return ClipProbe(tuple(times), duration, height, width)


def decode_frames(path: Path | str, indices: Sequence[int], size: tuple[int, int], covers: bool = True) -> torch.Tensor:
    """Frames `indices` (any order, repeats allowed) as (F, 3, H, W) uint8, only these and one size-d frame in memory.

    size: (height, width). With `covers`, frames are scaled to cover it and cropped at the centre; without, it must be
    the size the probe found. Frames of another size than the first one take on its shape.
    """
    path = Path(path)
    height, width = size
    first, last = min(indices), max(indices)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(index, []).append(place)
    filters = [f"select=between(n\\,{first}\\,{last})", _display_shape()]
    if covers:
        fit = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=lanczos+accurate_rnd+full_chroma_int"
        filters += [fit, "format=rgb24", f"crop={width}:{height}"]
    command = [*_input_command(path), "-map", "0:v:0", "-vf", ",".join(filters), "-fps_mode", "passthrough"]
    command += ["-frames:v", str(last - first + 1), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames = torch.empty(len(indices), 3, height, width, dtype=torch.uint8)
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
        try:
            for index in range(first, last + 1):
                raw = process.stdout.read(height * width * 3)
                if len(raw) < height * width * 3:
                    messages.seek(0)
                    reason = _first_error(messages.read().decode("utf-8", "replace")) or "it ended early"
                    raise InputError(f"{path} could not be read at frame {index} ({reason}); {CURE.format(name=path.name)}.")
                if index in places:
                    picture = torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(height, width, 3)
                    frames[places[index]] = picture.permute(2, 0, 1)
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
    return frames


def read_video(path: Path | str) -> Clip:
    """Reads a whole clip, rotated as its metadata says.

    Raises:
        InputError: missing, unreadable, damaged, cut off, empty, or too large to hold in memory.
    """
    path = Path(path)
    probe = probe_video(path)
    if probe.num_frames * probe.height * probe.width * 3 > MAX_DECODED_BYTES:
        raise InputError(
            f"{path} would fill more than {MAX_DECODED_BYTES >> 30} GiB ({probe.num_frames} frames of {probe.width}x{probe.height}); "
            "shorten it or encode it at a smaller size."
        )
    return Clip(decode_frames(path, range(probe.num_frames), (probe.height, probe.width), covers=False), probe.fps)


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
        command = [_ffmpeg(), "-hide_banner", "-nostats", "-loglevel", "level+error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
        command += ["-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-c:v", "libx264", "-crf", "14"]
        command += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-movflags", "+faststart"]
        command += ["-f", "mp4", f"file:{temporary.absolute()}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages)
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
            raise OSError(_first_error(messages.read().decode("utf-8", "replace")) or f"ffmpeg ended with status {status}")


def write_gif(path: Path | str, frames: torch.Tensor, fps: float, enlarges: bool = True) -> None:
    """An endless GIF whose delays, whole centiseconds, add up to the true duration; `enlarges` small pictures.

    frames: (F, 3, H, W) in [-1, 1]; viewers slow delays under 2 centiseconds down, so 50 fps is the most.

    Raises:
        InputError: the frame rate is out of range, or the file cannot be written.
    """
    check_fps(fps)
    pixels = _enlarge(_to_bytes(frames)) if enlarges else _to_bytes(frames)
    pictures = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pixels]
    ends = [round(100 * (index + 1) / fps) for index in range(len(pictures))]
    delays = [10 * max(2, end - begin) for begin, end in pairwise([0, *ends])]
    with atomic_path(path) as temporary:
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=delays, loop=0)


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


def _ffmpeg() -> str:
    """Path of the executable. Imported here because the rest of the core must run where only pictures are handled."""
    try:
        import imageio_ffmpeg
    except ImportError as problem:
        raise InputError("Video files need the package imageio-ffmpeg; install it with: pip install imageio-ffmpeg.") from problem
    return imageio_ffmpeg.get_ffmpeg_exe()


def _display_shape() -> str:
    return "scale=w=iw*sar:h=ih:flags=lanczos+accurate_rnd+full_chroma_int,setsar=1"


def _input_command(path: Path) -> list[str]:
    """Only local files of known containers: a playlist that poses as a video must not open other files or addresses.

    Filters outlive a change of the picture's size, as in recorded calls: made anew, they would count frames from 0 again.
    """
    command = [_ffmpeg(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", "-reinit_filter", "0"]
    return [*command, "-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-i", f"file:{path.absolute()}"]


def _framecrc(path: Path, options: list[str]) -> tuple[str, str]:
    """One line per frame or packet of the chosen streams, and ffmpeg's messages."""
    try:
        done = subprocess.run(
            [*_input_command(path), *options, "-f", "framecrc", "-"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as problem:
        raise InputError(f"{path} took over {PROBE_TIMEOUT_S} s to decode; {CURE.format(name=path.name)}.") from problem
    messages = done.stderr.decode("utf-8", "replace")
    reason = _first_error(messages)
    if reason or done.returncode != 0:
        reason = reason or f"ffmpeg ended with status {done.returncode}"
        if reason.startswith("Stream map"):
            reason = "it holds no picture, only sound or text"
        raise InputError(f"{path} cannot be read as a video ({reason}); {CURE.format(name=path.name)}.")
    return done.stdout.decode(), messages


def _packet_rows(report: str) -> list[tuple[float, float]]:
    """(start, duration) in seconds of every line of a framecrc report."""
    bases = {stream: Fraction(base) for stream, base in re.findall(r"#tb (\d+): (\S+)", report)}
    rows = re.findall(r"^(\d+),\s*-?\d+,\s*(-?\d+),\s*(\d+),", report, re.MULTILINE)
    return [(float(int(start) * bases[stream]), float(int(length) * bases[stream])) for stream, start, length in rows]


def _reach(path: Path) -> float:
    """Second at which the last packet of any stream ends: sound may rightly outlast the picture."""
    report, _ = _framecrc(path, ["-map", "0:v", "-map", "0:a?", "-c", "copy", "-copyts"])
    return max((start + length for start, length in _packet_rows(report)), default=0.0)


def _first_error(messages: str) -> str:
    found = re.search(r"\[(?:error|fatal|panic)\] (.+)", messages)
    return found.group(1).strip() if found else ""


def _check_container(path: Path) -> None:
    """Finds the cuts that ffmpeg passes over in silence: AVI files shorter than they declare, GIF files without an end."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; check the path.")
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            length = stream.seek(0, 2)
            stream.seek(max(0, length - 64))
            tail = stream.read()
    except OSError as problem:
        raise InputError(f"{path} cannot be opened ({problem.strerror}); check its permissions.") from problem
    if length == 0:
        raise InputError(f"{path} is empty; copy it again.")
    declared = int.from_bytes(head[4:8], "little") + 8 if head[:4] == b"RIFF" else 0
    is_cut_avi = length < declared < 2**32
    is_cut_gif = head[:3] == b"GIF" and not tail.rstrip(b"\0").endswith(b";")
    if is_cut_avi or is_cut_gif:
        raise InputError(f"{path} is cut off; {CURE.format(name=path.name)}.")
