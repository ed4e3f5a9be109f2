"""Talks to ffmpeg: runs it, and reads what it says about a file's streams."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from .color import UNTAGGED, Color
from .streams import PictureStream
from .transparency import has_alpha
from .verdict import CURE

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,gif"
PROBE_TIMEOUT_S = 1800
OLDEST = "4.2"
UNKNOWN_OPTION = re.compile(
    r"Unrecognized option '([^']+)'|No such filter: '([^']+)'|Unknown (?:encoder|decoder) '([^']+)'|Invalid loglevel \"([^\"]+)\""
)
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Of codecs whose alpha is a second picture, which ffmpeg's own decoders pass over."""
STREAM = re.compile(r"^(?:\[info\])?\s*Stream #0:(\d+)[^:]*: (Video|Audio|Subtitle|Data|Attachment)(?:: (.*))?")
LAYOUT = re.compile(r", ([a-z]\w*)(?:\(((?:[^()]|\([^()]*\))*)\))?, \d+x\d+")
"""Pixel format, and what is said of it: 'yuv420p(tv, bt709, top coded first (swapped))'."""
SIZE = re.compile(r", (\d+)x(\d+)")
COLORS = re.compile(r"([\w-]+)/([\w-]+)/([\w-]+)|\b(bt709|bt2020nc|bt2020c)\b")


@dataclass(frozen=True)
class Picture:
    """A picture stream as the header has it."""

    stream: PictureStream
    color: Color
    has_alpha: bool
    is_interlaced: bool
    decoder: str | None


@dataclass(frozen=True)
class Header:
    """promised: length that the file declares, in seconds from `begin` on; None where it does not say."""

    pictures: tuple[Picture, ...]
    promised: float | None
    begin: float


def executable() -> str:
    """Path of ffmpeg. Imported here because the rest of the core must run where only pictures are handled."""
    try:
        import imageio_ffmpeg
    except ImportError as problem:
        raise InputError("Video files need the package imageio-ffmpeg; install it with: pip install imageio-ffmpeg.") from problem
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as problem:
        raise InputError("imageio-ffmpeg has no ffmpeg for this machine; install ffmpeg, or name it in IMAGEIO_FFMPEG_EXE.") from problem


def start(command: Sequence[str], **streams: object) -> subprocess.Popen:
    """Raises InputError where the executable cannot be run."""
    try:
        return subprocess.Popen(command, **streams)
    except OSError as problem:
        reason = problem.strerror or problem
        raise InputError(f"ffmpeg cannot be run ({command[0]}: {reason}); correct or unset IMAGEIO_FFMPEG_EXE.") from problem


def check_options(messages: str) -> None:
    """Raises InputError where ffmpeg did not know what it was asked for."""
    found = UNKNOWN_OPTION.search(messages)
    if found:
        asked = next(filter(None, found.groups()))
        raise InputError(
            f"ffmpeg {_version(executable())} ({executable()}) does not know '{asked}', which videos need; use ffmpeg {OLDEST} or newer, "
            "or unset IMAGEIO_FFMPEG_EXE to use the one of imageio-ffmpeg."
        )


def input_command(path: Path, decoder: str | None = None) -> list[str]:
    """Only local files of known containers: a playlist that poses as a video must not open other files or addresses.

    Filters outlive a change of the picture's size, as in recorded calls: made anew, they would count frames from 0 again.
    """
    command = [executable(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info", "-reinit_filter", "0"]
    command += ["-c:v", decoder] if decoder else []
    return [*command, "-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-i", f"file:{path.absolute()}"]


def passthrough() -> list[str]:
    """The options that keep every frame, as this ffmpeg has them: they are newer than 5.0, and the older ones end with 8."""
    return _passthrough(executable())


def framecrc(path: Path, options: Sequence[str], decoder: str | None = None) -> tuple[dict[int, list[tuple[float, float]]], str, str]:
    """(start, duration) in seconds of what each output stream holds, the report itself, and ffmpeg's messages.

    Raises:
        InputError: ffmpeg cannot be run, does not know an option, or cannot open the file.
    """
    command = [*input_command(path, decoder), *options, "-f", "framecrc", "-"]
    process = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired as problem:
        raise InputError(f"{path} took over {PROBE_TIMEOUT_S} s to decode; {CURE.format(name=path.name)}.") from problem
    finally:
        process.kill()
        process.wait()
    report, messages = output.decode(errors="replace"), errors.decode(errors="replace")
    check_options(messages)
    if process.returncode:
        messages += f"\n[error] ffmpeg ended with status {process.returncode}"
    bases = {stream: Fraction(base) for stream, base in re.findall(r"#tb (\d+): (\S+)", report)}
    rows: dict[int, list[tuple[float, float]]] = {}
    for stream, begin, length in re.findall(r"^(\d+),\s*-?\d+,\s*(-?\d+),\s*(\d+),", report, re.MULTILINE):
        rows.setdefault(int(stream), []).append((float(int(begin) * bases[stream]), float(int(length) * bases[stream])))
    return rows, report, messages


def read_header(path: Path) -> Header:
    """What the file says about itself; nothing is decoded.

    Raises:
        InputError: not a video, or without a picture.
    """
    process = start(input_command(path), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    messages = process.communicate()[1].decode(errors="replace")
    check_options(messages)
    if "Input #0" not in messages:
        reason = (complaints(messages) or ["ffmpeg gives no reason"])[0].removeprefix("Error opening input: ")
        raise InputError(f"{path} cannot be read as a video ({reason}); {CURE.format(name=path.name)}.")
    pictures, lines = [], messages.splitlines()
    for number, line in enumerate(lines):
        found = STREAM.search(line)
        if found and found.group(2) == "Video":
            below = "\n".join(lines[number + 1 : next((n for n in range(number + 1, len(lines)) if STREAM.search(lines[n])), None)])
            pictures.append(_picture(int(found.group(1)), found.group(3) or "", below))
    if not any(not picture.stream.is_cover for picture in pictures):
        what = "a cover picture" if pictures else "no picture"
        raise InputError(f"{path} cannot be read as a video (it holds {what}, only sound or text); {CURE.format(name=path.name)}.")
    promised = re.search(r"Duration: (\d+):(\d+):([\d.]+), start: (-?[\d.]+)", messages)
    if promised is None:
        return Header(tuple(pictures), None, 0.0)
    hours, minutes, seconds, begin = map(float, promised.groups())
    # where other containers promise a length, Matroska promises the second of its end
    return Header(tuple(pictures), hours * 3600 + minutes * 60 + seconds, 0.0 if "Input #0, matroska" in messages else begin)


def complaints(messages: str) -> list[str]:
    """What ffmpeg calls an error, each once."""
    return list(dict.fromkeys(text.strip() for text in re.findall(r"\[(?:error|fatal|panic)\] (.+)", messages)))


def _picture(index: int, description: str, metadata: str) -> Picture:
    """From a line as 'h264 (High), yuv420p(tv, bt709, progressive), 160x96 [SAR 1:1], 30 fps (default)' and the lines below it."""
    size = SIZE.search(description)
    codec = description.split(" ")[0].rstrip(",")
    layout = LAYOUT.search(description)
    pixel_format, said = (layout.group(1), layout.group(2) or "") if layout else ("", "")
    colors = COLORS.search(said)
    names = [colors.group(4)] * 3 if colors and colors.group(4) else list(colors.groups()[:3]) if colors else ["unknown"] * 3
    names = ["unknown" if name in UNTAGGED else name for name in names]
    if names[1] in ("bt2020nc", "bt2020c"):
        names[1] = "bt2020"
    has_side_alpha = codec in ALPHA_DECODERS and re.search(r"alpha_mode\s*: 1", metadata, re.IGNORECASE) is not None
    return Picture(
        PictureStream(
            index,
            *(map(int, size.groups()) if size else (0, 0)),
            is_cover="(attached pic)" in description or "(still image)" in description or "(timed thumbnails)" in description,
            is_default="(default)" in description,
        ),
        Color(*names),
        has_side_alpha or has_alpha(pixel_format),
        any(order in said for order in ("top first", "bottom first", "top coded", "bottom coded")),
        ALPHA_DECODERS[codec] if has_side_alpha else None,
    )


@lru_cache(maxsize=8)
def _passthrough(ffmpeg: str) -> list[str]:
    command = [ffmpeg, "-hide_banner", "-fps_mode", "passthrough"]
    said = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).communicate()[1]
    is_known = b"Unrecognized option" not in said
    return ["-fps_mode" if is_known else "-vsync", "passthrough"]


@lru_cache(maxsize=8)
def _version(ffmpeg: str) -> str:
    process = start([ffmpeg, "-version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = re.search(r"ffmpeg version (\S+)", process.communicate()[0].decode(errors="replace"))
    return found.group(1) if found else "of unknown version"
