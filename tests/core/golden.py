"""Where the golden data of the reference is, and how the tests read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

GOLDEN = Path(os.environ.get("DUALREAL_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
needs_golden = pytest.mark.skipif(
    not (GOLDEN / "outputs.safetensors").exists(),
    reason=f"SKIPPED LOUDLY: no golden data in {GOLDEN}: parity with the reference is untested",
)


def golden(name: str) -> dict[str, torch.Tensor]:
    """Tensors of one golden file."""
    return load_file(GOLDEN / f"{name}.safetensors")


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of the expected, in float64."""
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).norm() / expected.norm())
