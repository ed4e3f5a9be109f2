"""Decoded pictures cut to size, and their subject: 8-bit or float in [0, 1], channels last."""

from __future__ import annotations

import numpy
import torch
from PIL import Image

from ..errors import InputError
from ..video.transparency import NEUTRAL_GREY
from .sizes import Size, cover_box

MASK_STAND_IN = (64, 64)
MASK_ASPECT_SLACK = 0.02


def cover(frames: torch.Tensor, size: Size) -> torch.Tensor:
    """(F, H, W, C) -> float (F, h, w, C) in [0, 1]; the values are untouched where no scaling is needed."""
    scaled, top, left = cover_box(frames.shape[1:3], size)
    if tuple(frames.shape[1:3]) != scaled:
        shrunk = [to_pixels(to_image(frame).resize(scaled[::-1], Image.Resampling.LANCZOS)) for frame in frames]
        frames = torch.stack(shrunk).reshape(len(shrunk), *scaled, -1)
    frames = frames[:, top : top + size[0], left : left + size[1]]
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def to_image(pixels: torch.Tensor) -> Image.Image:
    """(H, W, 1 or 3) -> 8-bit image."""
    values = pixels if pixels.dtype == torch.uint8 else (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray((values[..., 0] if values.shape[-1] == 1 else values).contiguous().numpy())


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Grey or RGB image -> 8-bit (H, W) or (H, W, 3)."""
    return torch.from_numpy(numpy.array(image))


def fit_mask(mask: torch.Tensor, size: Size, name: str) -> torch.Tensor | None:
    """Mask at the size of its picture; None for the blank stand-in that loaders give for opaque pictures."""
    mask = mask.float()
    if tuple(mask.shape) == tuple(size):
        return mask
    if not mask.numel():
        raise InputError(f"The mask of {name} has no pixels; wire one mask per image, or none.")
    if tuple(mask.shape) == MASK_STAND_IN and mask.min() == mask.max():
        return None
    if abs(mask.shape[0] * size[1] / (mask.shape[1] * size[0]) - 1) > MASK_ASPECT_SLACK:
        sizes = f"{mask.shape[1]}x{mask.shape[0]} and the image {size[1]}x{size[0]}"
        raise InputError(f"The mask of {name} is {sizes}; wire the masks in the order of the images.")
    return torch.nn.functional.interpolate(mask[None, None], size=tuple(size), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)


def split_alpha(pixels: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Float (H, W, C) -> picture (H, W, 3) with grey behind it, and its subject (H, W), None where that is everything."""
    if pixels.shape[-1] == 1:
        pixels = pixels.expand(-1, -1, 3)
    picture, subject = pixels[..., :3], torch.ones(pixels.shape[:2])
    if pixels.shape[-1] == 4:
        subject = pixels[..., 3].clamp(0, 1)
        picture = picture * subject[..., None] + (torch.tensor(NEUTRAL_GREY) / 255) * (1 - subject[..., None])
    if mask is not None:
        subject = subject * mask.clamp(0, 1)
    return picture, None if subject.min() >= 1 else subject
