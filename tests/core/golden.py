"""What the paper's code computes on a small CogVideoX. A part of it lies in `golden_data`, all of it where `DUALREAL_GOLDEN` says."""

from __future__ import annotations

import json
import lzma
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file

SHIPPED = Path(__file__).parent / "golden_data"
WHOLE = Path(os.environ.get("DUALREAL_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
SETS = ["shipped", *(["whole"] if "DUALREAL_GOLDEN" in os.environ or WHOLE.exists() else [])]


@dataclass(frozen=True)
class Golden:
    """A folder of golden data; what only the whole set has skips the test that asks for it."""

    folder: Path

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """Tensors of one file."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            self._skip(name)
        return load_file(path)

    def tensor(self, file: str, name: str) -> torch.Tensor:
        """One tensor of a file."""
        tensors = self.tensors(file)
        if name not in tensors:
            self._skip(f"{name} of {file}")
        return tensors[name]

    def table(self, path: str) -> dict:
        """Content of a JSON file."""
        return json.loads((self.folder / path).read_text())

    def transformer(self) -> torch.nn.Module:
        """The base, in float32."""
        from diffusers import CogVideoXTransformer3DModel

        model = CogVideoXTransformer3DModel.from_pretrained(self.folder / "transformer", torch_dtype=torch.float32)
        return model.eval().requires_grad_(False)

    def _skip(self, what: str) -> NoReturn:
        pytest.skip(f"SKIPPED LOUDLY: the golden data that is shipped has no {what}: name the folder of the whole set in DUALREAL_GOLDEN")


def open_set(name: str, scratch: Path) -> Golden:
    """The shipped set, unpacked into `scratch`, or the whole one."""
    if name == "whole":
        if not (WHOLE / "outputs.safetensors").exists():
            pytest.skip(f"SKIPPED LOUDLY: no golden data in DUALREAL_GOLDEN ({WHOLE}); only the shipped part is tested")
        return Golden(WHOLE)
    for source in (path for path in SHIPPED.rglob("*") if path.is_file()):
        target = scratch / source.relative_to(SHIPPED)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".xz":
            target.with_suffix("").write_bytes(lzma.decompress(source.read_bytes()))
        else:
            shutil.copyfile(source, target)
    checkpoint = torch.load(scratch / "adapter.pth", weights_only=True)
    save_file({key: weight.detach().float().contiguous() for key, weight in checkpoint.items()}, scratch / "adapter.safetensors")
    return Golden(scratch)


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of the expected, in float64."""
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).norm() / expected.norm())
