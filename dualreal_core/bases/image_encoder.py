"""Pictures as image encoders take them, and the CLIP vision tower of reference images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..errors import InputError
from .folder_files import check_component, read_json
from .loading import explained, load_weights

INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}
PREPARATION_PLACES = ("preprocessor_config.json", "../image_processor/preprocessor_config.json")


@dataclass(frozen=True)
class ImagePreparation:
    """Size, crop and normalisation of a CLIP tower's pictures; `size` is the shortest edge or (height, width).

    Transformers' CLIPImageProcessor does not take its place. It resizes with Pillow or with torchvision, whichever is there, and
    both differ from this on a tenth to a fifth of the values of a resized smooth picture, by one 8-bit level and seldom two (white
    noise: by up to 23): cached reference embeddings and scores would move.
    """

    size: int | tuple[int, int] = 224
    crop: tuple[int, int] = (224, 224)
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_folder(cls, folder: Path) -> ImagePreparation:
        """Reads preprocessor_config.json as CLIPImageProcessor does, older spellings included.

        Raises:
            InputError: no such file, or one that asks for something else than resize, centre crop and normalisation.
        """
        path = next((folder / place for place in PREPARATION_PLACES if (folder / place).is_file()), folder / PREPARATION_PLACES[0])
        config = read_json(path)
        size, crop, resample = config.get("size", 224), config.get("crop_size", 224), config.get("resample", 3)
        if isinstance(size, dict):
            size = size["shortest_edge"] if "shortest_edge" in size else (size.get("height"), size.get("width"))
        crop = (crop.get("height"), crop.get("width")) if isinstance(crop, dict) else (crop, crop)
        steps = ("do_resize", "do_center_crop", "do_normalize", "do_rescale")
        edges = size if isinstance(size, tuple) else (size, size)
        is_readable = all(isinstance(length, int) for length in (*edges, *crop)) and resample in INTERPOLATION
        if not is_readable or not all(config.get(step, True) for step in steps) or edges[0] < crop[0] or edges[1] < crop[1]:
            raise InputError(f"{path} describes no resize, centre crop and normalisation: use the image encoder's own CLIP file.")
        return cls(size, crop, INTERPOLATION[resample], tuple(config.get("image_mean", cls.mean)), tuple(config.get("image_std", cls.std)))

    def apply(self, frame: torch.Tensor) -> torch.Tensor:
        """frame: (3, H, W) in [-1, 1] -> pixel values (1, 3, h, w). Rounds to 8 bits before and after resizing, as CLIP does."""
        pixels = to_bytes((frame.float() + 1) * 127.5)[None]
        height, width = pixels.shape[-2:]
        size = self.size
        if isinstance(size, int):
            short, long = min(height, width), max(height, width)
            scaled = int(size * long / short)
            size = (size, scaled) if height <= width else (scaled, size)
        if size != (height, width):
            is_smooth = self.interpolation != "nearest"
            pixels = to_bytes(functional.interpolate(pixels, size=size, mode=self.interpolation, antialias=is_smooth))
        top, left = (size[0] - self.crop[0]) // 2, (size[1] - self.crop[1]) // 2
        pixels = pixels[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (torch.tensor(values, device=frame.device).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std


def to_bytes(pixels: torch.Tensor) -> torch.Tensor:
    """pixels: any shape, 0 to 255 -> the nearest whole numbers, still float."""
    return pixels.round().clamp(0, 255)


class ReferenceEncoder:
    """A CLIP vision tower that embeds reference images; only config and header are read until `load`.

    Attributes:
        folder: where it is.
        condition_dim: width of the embedding.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError where the folder holds no whole CLIP vision tower with a projection."""
        shapes = check_component(folder)
        if "visual_projection.weight" not in shapes:
            raise InputError(f"{folder} has no visual projection: give a CLIPVisionModelWithProjection, such as OpenCLIP ViT-H/14.")
        self.folder = folder
        self.condition_dim: int = shapes["visual_projection.weight"][0]
        self.preparation = ImagePreparation.from_folder(folder)

    def load(self, device: str) -> CLIPVisionModelWithProjection:
        """The tower in float32."""
        config = explained(lambda: CLIPVisionConfig.from_pretrained(self.folder, local_files_only=True), self.folder)
        config.projection_dim = self.condition_dim
        return load_weights(CLIPVisionModelWithProjection, self.folder, torch.float32, device, {"config": config})
