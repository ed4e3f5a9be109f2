"""Reads videos through ffmpeg: damaged files are refused, never read in part."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import torch

from ..errors import InputError
from . import ffmpeg
from .clip import Clip, ClipProbe
from .color import to_sdr
from .containers import check_file, is_short
from .streams import choice_remark, choose_picture
from .transparency import over_grey
from .verdict import CURE, Decoding, judge

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".webm", ".mkv", ".gif")
MAX_DECODED_BYTES = 4 * 2**30
SCALING = "flags=lanczos+accurate_rnd+full_chroma_int"
DISPLAY_SHAPE = f"scale=w=iw*sar:h=ih:{SCALING},setsar=1"
ALL_PACKETS = ["-map", "0:v", "-map", "0:a?", "-map", "0:s?", "-map", "0:d?", "-ignore_unknown", "-c", "copy", "-copyts"]


def probe_video(path: Path | str) -> ClipProbe:
    """Decodes the whole file without keeping a frame.

    Raises:
        InputError: missing, not a video, damaged, cut off, or without frames.
    """
    path = Path(path)
    check_file(path)
    lacks_bytes = is_short(path)
    header = ffmpeg.read_header(path)
    packets, messages = _packets(path)
    picture, remarks = _choose(path, header, packets)
    options = ["-map", f"0:{picture.stream.index}", "-vf", DISPLAY_SHAPE, *ffmpeg.passthrough(), "-enc_time_base", "1:1000000", "-copyts"]
    rows, report, said = ffmpeg.framecrc(path, options, picture.decoder)
    size = re.search(r"#dimensions 0: (\d+)x(\d+)", report)
    width, height = map(int, size.groups()) if size else (0, 0)
    found = Decoding(
        frames=rows.get(0, []),
        packets=[start for start, _ in packets.get(picture.stream.index, [])],
        reach=max((start + length for stream in packets.values() for start, length in stream), default=0.0),
        promised=header.promised,
        begin=header.begin,
        num_broken=len(re.findall(r"corrupt decoded frame", said)),
        complaints=ffmpeg.complaints(messages + said),
        is_short=lacks_bytes,
        height=height,
        width=width,
    )
    return judge(str(path), path.name, found, remarks)


def decode_clip(
    path: Path | str, indices: Sequence[int], size: tuple[int, int], covers: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Frames `indices` (any order, repeats allowed), only these and one size-d frame in memory.

    size: (height, width). With `covers`, frames are scaled to cover it and cropped at the centre; without, it must be
    the size the probe found. Frames of another size than the first one take on its shape.

    Returns:
        uint8 (F, H, W, 3), with neutral grey where they are transparent, and their subject uint8 (F, H, W), None where all is opaque.
    """
    path = Path(path)
    check_file(path)
    header = ffmpeg.read_header(path)
    is_one = len(header.pictures) == 1
    picture, _ = _choose(path, header, {} if is_one else _packets(path)[0])
    frames, subject = _decode(path, picture, indices, size, covers)
    if subject is None or subject.min() == 255:
        return frames, None
    return _decode(path, picture, indices, size, covers, premultiplies=True)


def decode_frames(path: Path | str, indices: Sequence[int], size: tuple[int, int], covers: bool = True) -> torch.Tensor:
    """The frames of `decode_clip` as (F, 3, H, W) uint8."""
    return decode_clip(path, indices, size, covers)[0].permute(0, 3, 1, 2)


def read_video(path: Path | str) -> Clip:
    """Reads a whole clip at its own rate, rotated as its metadata says.

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
    return Clip(decode_frames(path, probe.shown, (probe.height, probe.width), covers=False), probe.fps)


def _packets(path: Path) -> tuple[dict[int, list[tuple[float, float]]], str]:
    """(start, duration) in seconds of the packets of each stream, by its place in the file, and ffmpeg's messages."""
    rows, _, messages = ffmpeg.framecrc(path, ALL_PACKETS)
    place = {int(out): int(given) for given, out in re.findall(r"Stream #0:(\d+) -> #0:(\d+) \(copy\)", messages)}
    return {place.get(out, out): packets for out, packets in rows.items()}, messages


def _choose(path: Path, header: ffmpeg.Header, packets: dict[int, list[tuple[float, float]]]) -> tuple[ffmpeg.Picture, list[str]]:
    """The picture and what people should know about it."""
    counted = [replace(picture.stream, num_packets=len(packets.get(picture.stream.index, []))) for picture in header.pictures]
    chosen = choose_picture(counted)
    if chosen is None:
        raise InputError(f"{path} holds no video frames; {CURE.format(name=path.name)}.")
    picture = next(picture for picture in header.pictures if picture.stream.index == chosen.index)
    return picture, [*choice_remark(counted, chosen), *picture.color.remarks()]


def _decode(
    path: Path, picture: ffmpeg.Picture, indices: Sequence[int], size: tuple[int, int], covers: bool, premultiplies: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `decode_clip`, with a subject wherever the format has alpha.

    premultiplies: keeps what is hidden under transparency from bleeding into the edges, but rounds what is opaque.
    """
    height, width = size
    first, last = min(indices), max(indices)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(index, []).append(place)

    is_wide = picture.color.is_wide and not picture.has_alpha
    pixel_format = "rgba" if picture.has_alpha else "rgb48le" if is_wide else "rgb24"
    dtype, channels = numpy.dtype("<u2" if is_wide else "u1"), 4 if picture.has_alpha else 3
    filters = ["yadif=deint=interlaced"] if picture.is_interlaced else []  # it needs the frames before and behind
    filters.append(f"select=between(n\\,{first}\\,{last})")
    if picture.color.lacks_matrix(picture.stream.height, picture.stream.width):
        filters.append("setparams=colorspace=bt709")
    if premultiplies:
        filters.append("format=gbrap,premultiply=inplace=1")
    filters.append(DISPLAY_SHAPE)
    if covers:
        filters += [f"scale={width}:{height}:force_original_aspect_ratio=increase:{SCALING}", f"format={pixel_format}"]
        filters.append(f"crop={width}:{height}")
    command = [*ffmpeg.input_command(path, picture.decoder), "-map", f"0:{picture.stream.index}", "-vf", ",".join(filters)]
    command += [*ffmpeg.passthrough(), "-frames:v", str(last - first + 1), "-f", "rawvideo", "-pix_fmt", pixel_format, "-"]
    frames = torch.empty(len(indices), height, width, 3, dtype=torch.uint8)
    subject = torch.empty(len(indices), height, width, dtype=torch.uint8) if picture.has_alpha else None
    with tempfile.TemporaryFile() as messages:
        process = ffmpeg.start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
        try:
            num_bytes = height * width * channels * dtype.itemsize
            for index in range(first, last + 1):
                raw = process.stdout.read(num_bytes)
                if len(raw) < num_bytes:
                    messages.seek(0)
                    said = messages.read().decode(errors="replace")
                    ffmpeg.check_options(said)
                    reason = next(iter(ffmpeg.complaints(said)), "it ended early")
                    raise InputError(f"{path} could not be read at frame {index} ({reason}); {CURE.format(name=path.name)}.")
                if index not in places:
                    continue
                values = numpy.frombuffer(bytearray(raw), dtype=dtype).reshape(height, width, channels)
                if subject is not None:
                    values, alpha = over_grey(values, is_premultiplied=premultiplies)
                    subject[places[index]] = torch.from_numpy(alpha)
                elif is_wide:
                    values = to_sdr(values, picture.color)
                frames[places[index]] = torch.from_numpy(values)
        finally:
            process.stdout.close()
            process.kill()
            process.wait()
    return frames, subject
