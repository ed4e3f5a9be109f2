"""A VIDEO that is a file, decoded by ComfyUI's PyAV under the rules of the core's reader; never whole in memory.

ComfyUI's own decoding takes the first picture stream, evenly spaced frames, HDR as it is, and no word about damage.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path

import av
import comfy.model_management
import numpy
import torch
from av.stream import Disposition
from av.video.reformatter import Colorspace
from comfy_api.latest import InputImpl

from ..dualreal_core.dataset.items import ClipSource, Pixels
from ..dualreal_core.dataset.photos import Photo
from ..dualreal_core.dataset.report import Unusable
from ..dualreal_core.dataset.sizes import Size
from ..dualreal_core.errors import InputError
from ..dualreal_core.files.digest import file_digest
from ..dualreal_core.files.regular import unreadable_reason
from ..dualreal_core.video import ClipProbe
from ..dualreal_core.video.color import Color, to_sdr
from ..dualreal_core.video.containers import check_file, is_short
from ..dualreal_core.video.streams import PictureStream, choice_remark, choose_picture
from ..dualreal_core.video.transparency import has_alpha, over_grey
from ..dualreal_core.video.verdict import Decoding, judge

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
TRANSFERS = {16: "smpte2084", 18: "arib-std-b67"}
PRIMARIES = {1: "bt709", 9: "bt2020", 12: "smpte432"}
UNSPECIFIED = 2
"""ffmpeg's numbers of colour properties."""
DISPLAY_MATRIX = "DISPLAYMATRIX"
SCALING = 0x200 | 0x2000 | 0x40000
"""The scaler's flags of the core's reader: lanczos, full_chroma_int, accurate_rnd."""


@dataclass(frozen=True)
class VideoFile(ClipSource):
    """Attributes:
        video: a file on disk or in memory, or a part of one in time.
    """

    name: str
    caption: str
    video: InputImpl.VideoFromFile

    def fingerprint(self) -> str:
        source, window = self.video.get_stream_source(), self.video.get_active_trim_window()
        try:
            if isinstance(source, str):
                reason = unreadable_reason(Path(source))
                if reason is not None:
                    raise Unusable(f"unreadable: it {reason}")
                content = file_digest(Path(source))
            else:
                content = hashlib.sha256(source.getvalue()).hexdigest()
        except OSError as problem:
            raise Unusable(f"unreadable: {problem.strerror or problem}") from problem
        return hashlib.sha256(f"{content} {window}".encode()).hexdigest() if any(window) else content

    def probe(self) -> ClipProbe:
        return self._found

    def frames(self, indices: Sequence[int], size: Size) -> Pixels:
        shape, wanted = (self._found.height, self._found.width), set(indices)
        found: dict[int, Photo] = {}
        with self._opened() as container:
            picture = _Picture(self.name, container)
            frames = _deinterlaced(picture.frames(container, self.video.get_active_trim_window(), []), picture.stream.time_base)
            for index, frame in enumerate(frames):
                if index in wanted:
                    found[index] = picture.show(frame, shape).cover(size)
                if len(found) == len(wanted):
                    break
        if len(found) < len(wanted):
            raise InputError(f"{self.name} could not be read at frame {min(wanted - set(found))}; replace the file or encode it anew.")
        photos = [found[index] for index in indices]
        pictures = torch.stack([photo.picture for photo in photos])
        if all(photo.subject is None or photo.subject.min() >= 1 for photo in photos):
            return pictures, None
        return pictures, torch.stack([torch.ones(size) if photo.subject is None else photo.subject for photo in photos])

    @cached_property
    def _found(self) -> ClipProbe:
        """Decodes everything and keeps nothing of it."""
        source, window = self.video.get_stream_source(), self.video.get_active_trim_window()
        if isinstance(source, str):
            check_file(Path(source))
        lacks_bytes = isinstance(source, str) and is_short(Path(source))
        frames: list[tuple[float, float]] = []
        complaints: list[str] = []
        num_broken = 0
        shape = 0, 0
        with self._opened() as container:
            picture = _Picture(self.name, container)
            for frame in picture.frames(container, window, complaints):
                shape = shape if frames else picture.shape(frame)
                num_broken += frame.is_corrupt
                base = float(frame.time_base or picture.stream.time_base)
                start = frames[-1][0] + frames[-1][1] if frame.pts is None and frames else (frame.pts or 0) * base
                frames.append((start, (frame.duration or 0) * base))
            is_whole = not any(window) and container.duration is not None
            begin = 0.0 if "matroska" in container.format.name else (container.start_time or 0) / av.time_base
            found = Decoding(
                frames=frames,
                packets=[] if any(window) else picture.packets,
                reach=picture.reach,
                promised=container.duration / av.time_base if is_whole else None,
                begin=begin,
                num_broken=num_broken,
                complaints=list(dict.fromkeys(complaints)),
                is_short=lacks_bytes,
                height=shape[0],
                width=shape[1],
            )
        file_name = Path(source).name if isinstance(source, str) else "clip"
        return judge(self.name, file_name, found, picture.remarks)

    @contextmanager
    def _opened(self) -> Iterator[av.container.InputContainer]:
        try:
            with av.open(self.video.get_stream_source(), mode="r") as container:
                yield container
        except InputError:
            raise
        except Exception as problem:  # what a decoder raises on damaged bytes is anything
            reason = getattr(problem, "strerror", None) or " ".join(str(problem).split()) or type(problem).__name__
            raise InputError(f"{self.name} cannot be read as a video ({reason}); replace it or encode it anew.") from problem


class _Picture:
    """The picture stream of an open file.

    Attributes:
        packets: start of each of its packets that was read, in seconds.
        reach: when the last packet of any stream ended.
    """

    def __init__(self, name: str, container: av.container.InputContainer) -> None:
        streams = {stream.index: stream for stream in container.streams.video}
        known = [_described(stream) for stream in streams.values()]
        if sum(not one.is_cover for one in known) > 1:
            counts = dict.fromkeys(streams, 0)
            for packet in container.demux(list(streams.values())):
                counts[packet.stream.index] += packet.size > 0
            container.seek(0)
            known = [_described(stream, counts[index]) for index, stream in streams.items()]
        chosen = choose_picture(known)
        if chosen is None or streams[chosen.index].codec_context is None:
            what = "only a cover picture" if known and chosen is None else "a picture in an unknown format" if known else "no picture"
            raise InputError(f"{name} holds {what}; replace it or encode it anew.")
        self.stream = streams[chosen.index]
        self.stream.thread_type = "AUTO"
        context = self.stream.codec_context
        self.color = Color("unknown", PRIMARIES.get(context.color_primaries, "unknown"), TRANSFERS.get(context.color_trc, "unknown"))
        self.remarks = [*choice_remark(known, chosen), *self.color.remarks()]
        self.packets: list[float] = []
        self.reach = 0.0
        tags = self.stream.metadata
        has_side_alpha = "1" in (tags.get("alpha_mode"), tags.get("ALPHA_MODE")) and context.name in ALPHA_DECODERS
        self.decoder = av.CodecContext.create(ALPHA_DECODERS[context.name], "r") if has_side_alpha else None

    def frames(
        self, container: av.container.InputContainer, window: tuple[float, float], complaints: list[str]
    ) -> Iterator[av.VideoFrame]:
        """Frames within `window` = (start, length) in seconds, length 0 to the end; `complaints` grows by what the decoder says."""
        begin, length = window
        if begin:
            container.seek(int(begin / self.stream.time_base), stream=self.stream)
        for packet in _until_unreadable(container, complaints):
            comfy.model_management.throw_exception_if_processing_interrupted()
            if packet.pts is not None and packet.size and packet.time_base:
                start = float(packet.pts * packet.time_base)
                self.reach = max(self.reach, start + float((packet.duration or 0) * packet.time_base))
                if packet.stream.index == self.stream.index and not packet.is_discard:
                    self.packets.append(start)
            if packet.stream.index != self.stream.index:
                continue
            try:
                decoded = self.decoder.decode(packet if packet.size else None) if self.decoder else packet.decode()
            except av.error.FFmpegError as problem:
                complaints.append(problem.strerror or str(problem))
                continue
            for frame in decoded:
                at = None if frame.pts is None else float(frame.pts * self.stream.time_base)
                if length and at is not None and at >= begin + length:
                    return
                if not begin or at is None or at >= begin:
                    yield frame

    def shape(self, frame: av.VideoFrame) -> Size:
        """(height, width) at which players show it."""
        aspect = self.stream.sample_aspect_ratio
        width = max(1, int(frame.width * aspect)) if aspect else frame.width
        return (width, frame.height) if _turn(frame)[0, 0] == 0 else (frame.height, width)

    def show(self, frame: av.VideoFrame, shape: Size) -> Photo:
        """Upright, of `shape`."""
        turn = _turn(frame)
        height, width = shape if turn[0, 0] else shape[::-1]
        is_transparent = self.decoder is not None or has_alpha(frame.format.name)
        is_wide = self.color.is_wide and not is_transparent
        kind = "rgba" if is_transparent else "rgb48le" if is_wide else "rgb24"
        is_yuv = frame.format.name.startswith("yuv") and frame.colorspace == UNSPECIFIED
        matrix = Colorspace.ITU709 if is_yuv and Color().lacks_matrix(frame.height, frame.width) else None
        values = frame.reformat(width, height, kind, src_colorspace=matrix, interpolation=SCALING).to_ndarray()
        subject = None
        if is_transparent:
            values, subject = over_grey(values)
        elif is_wide:
            values = to_sdr(values, self.color)
        picture, *rest = [torch.from_numpy(_upright(array, turn)) for array in (values, subject) if array is not None]
        return Photo(picture, rest[0] if rest else None)


def _described(stream: av.VideoStream, num_packets: int = 0) -> PictureStream:
    context, disposition = stream.codec_context, stream.disposition
    width, height = (context.width, context.height) if context else (0, 0)
    is_cover = bool(disposition & (Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails))
    return PictureStream(stream.index, width, height, is_cover, bool(disposition & Disposition.default), num_packets)


def _until_unreadable(container: av.container.InputContainer, complaints: list[str]) -> Iterator[av.Packet]:
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as problem:
            complaints.append(problem.strerror or str(problem))
            return
        if packet is None:
            return
        yield packet


def _deinterlaced(frames: Iterator[av.VideoFrame], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """As many frames, without combs where the first one is interlaced."""
    first = next(frames, None)
    if first is None or not first.interlaced_frame:
        yield from frames if first is None else chain([first], frames)
        return
    graph = av.filter.Graph()
    ends = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=time_base), graph.add("buffersink")
    deinterlacer = graph.add("yadif", "deint=interlaced")
    ends[0].link_to(deinterlacer)
    deinterlacer.link_to(ends[1])
    graph.configure()
    for frame in chain([first], frames, [None]):
        graph.push(frame)
        with suppress(BlockingIOError, EOFError):
            while True:
                yield graph.pull()


def _turn(frame: av.VideoFrame) -> numpy.ndarray:
    """What shows the frame upright, by its metadata: (2, 2) of -1, 0 and 1 that maps (x, y) to (x, y) of the screen."""
    matrix = frame.side_data.get(DISPLAY_MATRIX)
    if matrix is None:
        return numpy.eye(2, dtype=int)
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    turn = numpy.array([[a, c], [b, d]])
    is_turned = abs(turn[0, 1]) > abs(turn[0, 0])
    turn[numpy.eye(2, dtype=bool) == is_turned] = 0
    return numpy.sign(turn) if abs(numpy.sign(turn)).sum() == 2 else numpy.eye(2, dtype=int)


def _upright(array: numpy.ndarray, turn: numpy.ndarray) -> numpy.ndarray:
    """(H, W, ...) turned and mirrored."""
    if turn[0, 0] == 0:
        array = array.swapaxes(0, 1)
    down, right = turn.sum(1)[::-1]
    return numpy.ascontiguousarray(array[::down, ::right])
