"""VIDEOs of stock loaders: their names, and where their frames come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management
import torch
from comfy_api.latest import Input, InputImpl

from ..dualreal_core.dataset.frames import DecodedClip
from ..dualreal_core.dataset.items import ClipSource
from ..dualreal_core.errors import InputError
from .video_files import VideoFile


def with_file_name(name: str, video: Input.Video) -> str:
    """The name, and in brackets that of the file where there is one."""
    source = video.get_stream_source() if isinstance(video, InputImpl.VideoFromFile) else None
    return f"{name} ({Path(source).name})" if isinstance(source, str) else name


def clip_source(name: str, caption: str, video: Input.Video) -> ClipSource:
    """Where the frames of a VIDEO come from.

    Raises:
        InputError: it is no VIDEO, or the node that made it cannot give its frames.
    """
    if isinstance(video, InputImpl.VideoFromFile):
        return VideoFile(name, caption, video)
    if not isinstance(video, Input.Video):
        raise InputError(f"{name} is no video but {type(video).__name__}; wire a node that loads or creates one.")
    with named(f"{name} cannot be read", "check the node that makes it"):
        given = video.get_components()
        images = given.images.cpu()
        if given.alpha is not None and images.shape[-1] == 3:
            images = torch.cat([images, given.alpha.cpu().reshape(*images.shape[:3], 1)], dim=-1)
        return DecodedClip(name, caption, images, float(given.frame_rate))


@contextmanager
def named(what: str, cure: str) -> Iterator[None]:
    """Turns whatever ComfyUI raises into one sentence that names the clip; cancelling and memory are ComfyUI's own to tell."""
    try:
        yield
    except InputError:
        raise
    except Exception as problem:
        if comfy.model_management.is_oom(problem):
            raise
        reason = " ".join(str(problem).split()).rstrip(".") or "without a word"
        raise InputError(f"{what} ({type(problem).__name__}: {reason}); {cure}.") from problem
