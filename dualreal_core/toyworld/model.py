"""The embedded base as a model: its weights, the configuration of its DiT and the position planes it reads."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..errors import InputError
from .codec import ToyCodec

WEIGHTS = Path(__file__).parent / "weights"
SHIFT = 3.0
"""Of the flow-matching schedule."""

_NATIVE_NAMES = {
    "condition_embedder.time_embedder.linear_1.": "time_embedding.0.",
    "condition_embedder.time_embedder.linear_2.": "time_embedding.2.",
    "condition_embedder.time_proj.": "time_projection.1.",
    "condition_embedder.text_embedder.linear_1.": "text_embedding.0.",
    "condition_embedder.text_embedder.linear_2.": "text_embedding.2.",
    ".attn1.": ".self_attn.",
    ".attn2.": ".cross_attn.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".to_out.0.": ".o.",
    ".norm2.": ".norm3.",
    ".ffn.net.0.proj.": ".ffn.0.",
    ".ffn.net.2.": ".ffn.2.",
    ".scale_shift_table": ".modulation",
    "proj_out.": "head.head.",
}


def load_weights(name: str, folder: Path = WEIGHTS) -> dict[str, torch.Tensor]:
    """The weights of `transformer` (under diffusers' names) or `codec`, in float32.

    Raises:
        InputError: the file is not there.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(f"{path} is missing, so the embedded base cannot be loaded: install the package again.")
    return {key: tensor.float() for key, tensor in load_file(path).items()}


def load_codec(folder: Path = WEIGHTS) -> ToyCodec:
    """The codec in float32 on the CPU, for use only."""
    codec = ToyCodec()
    codec.load_state_dict(load_weights("codec", folder))
    return codec.requires_grad_(False).eval()


def native_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the DiT under the names of Wan's original code instead of diffusers'."""

    def rename(key: str) -> str:
        if key == "scale_shift_table":
            return "head.modulation"
        for ours, native in _NATIVE_NAMES.items():
            key = key.replace(ours, native)
        return key

    return {rename(key): tensor for key, tensor in weights.items()}


def position_planes(num_frames: int, height: int, width: int) -> torch.Tensor:
    """Sines and cosines of the absolute place and time, which rotary attention cannot know: (16, F, height, width).

    Three frequencies each for x and y, two for time; the slowest spans half a period over the clip.
    """
    axes = [(width, (1, 1, -1), (0.5, 1.0, 2.0)), (height, (1, -1, 1), (0.5, 1.0, 2.0)), (num_frames, (-1, 1, 1), (0.5, 1.0))]
    planes = []
    for size, shape, frequencies in axes:
        place = ((torch.arange(size, dtype=torch.float32) + 0.5) / size).reshape(shape)
        for frequency in frequencies:
            angle = 2 * math.pi * frequency * place
            planes += [angle.sin().expand(num_frames, height, width), angle.cos().expand(num_frames, height, width)]
    return torch.stack(planes)
