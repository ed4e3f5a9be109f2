"""A folder of Wan 2.2 with two experts, made of a tiny one of Wan 2.1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BOUNDARY = 0.875


def edit_json(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def two_experts(wan: Path, folder: Path, boundary: float = BOUNDARY) -> Path:
    """A copy of a Wan folder with a second DiT of the same size and other weights."""
    shutil.copytree(wan, folder)
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    (weights,) = (folder / "transformer_2").glob("*.safetensors")
    generator = torch.Generator().manual_seed(7)
    changed = {
        name: weight + 0.3 * weight.float().std(correction=0).to(weight) * torch.randn(weight.shape, generator=generator).to(weight)
        for name, weight in load_file(weights).items()
    }
    save_file(changed, weights)
    edit_json(folder / "model_index.json", transformer_2=["diffusers", "WanTransformer3DModel"], boundary_ratio=boundary)
    return folder
