"""Videos in and out: damaged files are refused, and what a file shows is what players show.

Frames are uint8 (F, 3, H, W) when read and [-1, 1] when written.
"""

from .clip import Clip, ClipProbe
from .reading import VIDEO_SUFFIXES, decode_clip, decode_frames, probe_video, read_video
from .writing import check_fps, write_gif, write_mp4, write_png

__all__ = [
    "VIDEO_SUFFIXES", "Clip", "ClipProbe", "check_fps", "decode_clip", "decode_frames", "probe_video", "read_video", "write_gif",
    "write_mp4", "write_png",
]  # fmt: skip
