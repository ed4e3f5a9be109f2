"""VIDEOs of stock loaders: their names, and their frames."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import torch
from comfy_api.latest import Input, InputImpl, Types

DECODING_ERRORS = (OSError, ValueError, EOFError)
"""Those of the decoder derive from these."""


def with_file_name(name: str, video: Input.Video) -> str:
    """The name, and in brackets that of the file where there is one."""
    source = video.get_stream_source() if isinstance(video, InputImpl.VideoFromFile) else None
    return f"{name} ({Path(source).name})" if isinstance(source, str) else name


def decode(video: Input.Video) -> tuple[Types.VideoComponents, int]:
    """All of a video, and how many frames its file promises, 0 without a file.

    Raises:
        ValueError: decoding it would need more memory than is free.
    """
    if not isinstance(video, InputImpl.VideoFromFile):
        return video.get_components(), 0
    width, height = video.get_dimensions()
    promised = video.get_frame_count()
    length = max(promised, int(video.get_duration() * video.get_frame_rate()))
    needed = 2 * length * height * width * 3 * torch.float32.itemsize  # ComfyUI's list of frames, and the stack of them
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(f"decoding it needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} are free; shorten it or make it smaller")
    return video.get_components(), promised
