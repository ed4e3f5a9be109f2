"""Model folders of random weights for the metrics, a flow network that follows the brightest spot, and clips for it to follow."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizerFast,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

SIDE = 32
TEXT_TOKENS = 16
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
PICTURES = {"image_size": SIDE, "patch_size": 8}
FRAME = (48, 64)


def make_clip(folder: Path) -> Path:
    """Both towers, a tokenizer of single letters, and CLIP's preparation."""
    torch.manual_seed(1)
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = {**TOWER, "vocab_size": len(pieces), "max_position_embeddings": TEXT_TOKENS, "eos_token_id": len(pieces) - 1}
    text["bos_token_id"] = text["pad_token_id"] = len(pieces) - 2
    CLIPModel(CLIPConfig(text_config=text, vision_config={**TOWER, **PICTURES}, projection_dim=24)).save_pretrained(folder)
    CLIPTokenizerFast(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)
    return _with_preparation(folder, {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}})


def make_clip_vision(folder: Path) -> Path:
    torch.manual_seed(2)
    CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER, **PICTURES, projection_dim=24)).save_pretrained(folder)
    return _with_preparation(folder, {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}})


def make_dinov2(folder: Path) -> Path:
    torch.manual_seed(3)
    sizes = {name: size for name, size in TOWER.items() if name != "intermediate_size"}
    Dinov2Model(Dinov2Config(**sizes, **PICTURES)).save_pretrained(folder)
    return _with_preparation(folder, {"size": {"shortest_edge": SIDE + 8}, "crop_size": {"height": SIDE, "width": SIDE}})


def make_dino(folder: Path) -> Path:
    """The first DINO's form: a plain vision transformer, and one number as size."""
    torch.manual_seed(4)
    ViTModel(ViTConfig(**TOWER, **PICTURES), add_pooling_layer=False).save_pretrained(folder)
    return _with_preparation(folder, {"size": SIDE, "crop_size": SIDE})


def _with_preparation(folder: Path, sizes: dict[str, object]) -> Path:
    values = {"resample": 3, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], **sizes}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


class SpotFlow(nn.Module):
    """torchvision's interface of RAFT; the whole picture moves as the centre of its brightness above the darkest value does."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.feature_encoder = nn.ModuleDict({"convnormrelu": nn.Sequential(nn.Conv2d(3, width, 7))})
        self.seen: list[tuple[torch.Size, float, float, int]] = []

    def forward(self, image1: torch.Tensor, image2: torch.Tensor, num_flow_updates: int = 12) -> list[torch.Tensor]:
        self.seen.append((image1.shape, float(image1.min()), float(image1.max()), num_flow_updates))
        shift = spot_centre(image2) - spot_centre(image1)  # (N, 2)
        flow = shift[:, :, None, None].expand(-1, -1, *image1.shape[2:])
        return [torch.zeros_like(flow), flow]


def spot_flow(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The same as a function of bytes."""
    return SpotFlow()(first.float(), second.float())[-1]


def spot_centre(frames: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 2) as (x, y) in px; the middle of the picture where nothing is bright."""
    height, width = frames.shape[2:]
    light = frames.double().sum(1)
    light = light - light.amin((1, 2), keepdim=True)  # (N, H, W)
    light = light + 1e-12
    rows, columns = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    return torch.stack([(light * columns).sum((1, 2)), (light * rows).sum((1, 2))], dim=1) / light.sum((1, 2))[:, None]


def spot_clip(path: list[tuple[int, int]], side: int = 8, size: tuple[int, int] = FRAME) -> torch.Tensor:
    """A white square with its upper left corner at these (x, y), on black: (F, 3, H, W) uint8."""
    frames = torch.zeros(len(path), 3, *size, dtype=torch.uint8)
    for frame, (x, y) in zip(frames, path, strict=True):
        frame[:, y : y + side, x : x + side] = 255
    return frames


def straight(num_frames: int, dx: int, dy: int, start: tuple[int, int] = (24, 20)) -> list[tuple[int, int]]:
    return [(start[0] + dx * index, start[1] + dy * index) for index in range(num_frames)]
