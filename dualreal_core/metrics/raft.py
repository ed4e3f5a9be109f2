"""RAFT (Teed and Deng, ECCV 2020) as torchvision builds it, with weights from a local file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from ..errors import InputError
from ..files.digest import file_digest

NUM_UPDATES = 20
"""Iterations of the flow, as VBench runs it; torchvision's default is 12."""
SMALLEST_SIDE, SIDE_MULTIPLE = 128, 8
"""What RAFT's feature pyramid needs, in px."""
FIRST_WEIGHT = "feature_encoder.convnormrelu.0.weight"
CONSTRUCTORS = {64: "raft_large", 32: "raft_small"}
"""torchvision's constructor by the channels of the first weight."""
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")


class Raft:
    """A flow network in the sense of `flow.FlowNetwork`.

    Attributes:
        path: file of the weights; digest: its SHA-256; architecture: raft_large or raft_small.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Loads the weights.

        Args:
            path: .pth or .safetensors of torchvision's RAFT, or a folder with one such file.

        Raises:
            InputError: no such file, no weights of torchvision's RAFT, or torchvision is not installed.
        """
        self.path = _weight_file(path)
        weights = _read_weights(self.path)
        first = weights.get(FIRST_WEIGHT)
        if not isinstance(first, torch.Tensor) or first.ndim == 0 or first.shape[0] not in CONSTRUCTORS:
            raise InputError(f"{self.path} holds no RAFT weights in torchvision's form: save those of raft_large or raft_small.")
        self.architecture = CONSTRUCTORS[first.shape[0]]
        network = build_network(self.architecture)
        try:
            network.load_state_dict(weights)
        except RuntimeError as problem:
            raise InputError(
                f"{self.path} does not fit torchvision's {self.architecture}: use the weights torchvision gives it."
            ) from problem
        self.digest = file_digest(self.path)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    def describe(self) -> dict[str, object]:
        """Plain values that say which network it was and what it saw."""
        return {
            "file": self.path.name,
            "type": self.architecture,
            "digest": self.digest,
            "num_updates": NUM_UPDATES,
            "preparation": {"range": [-1, 1], "side_multiple": SIDE_MULTIPLE, "smallest_side": SMALLEST_SIDE, "padding": "replicate"},
        }

    @torch.no_grad()
    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Flow from each first frame to its second, on the CPU.

        Frames are scaled to [-1, 1] as torchvision's preset does, and their borders repeated up to a multiple of 8 and at least 128 px.

        Args:
            first, second: (N, 3, H, W) uint8

        Returns:
            (N, 2, H, W) px, as (x, y)
        """
        height, width = first.shape[2:]
        (top, bottom), (left, right) = _padding(height), _padding(width)
        pair = (
            functional.pad(frames.to(self._device).float() / 127.5 - 1, (left, right, top, bottom), mode="replicate")
            for frames in (first, second)
        )
        flow = self._network(*pair, num_flow_updates=NUM_UPDATES)[-1]
        return flow[:, :, top : top + height, left : left + width].cpu()


def build_network(architecture: str) -> nn.Module:
    """torchvision's RAFT without weights. Imported here because torchvision is an optional dependency.

    Raises:
        InputError: torchvision is not installed.
    """
    try:
        from torchvision.models import optical_flow
    except ImportError as problem:
        raise InputError("--raft needs torchvision; install it with: pip install torchvision.") from problem
    return getattr(optical_flow, architecture)()


def _padding(side: int) -> tuple[int, int]:
    padded = max(SMALLEST_SIDE, -(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE)
    return (padded - side) // 2, (padded - side + 1) // 2


def _weight_file(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path} is no file or folder: give the weights of torchvision's RAFT.")
    found = sorted(file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES) if path.is_dir() else [path]
    if len(found) != 1:
        raise InputError(f"{path} holds {len(found)} weight files ({', '.join(WEIGHT_SUFFIXES)}): name the file itself.")
    return found[0]


def _read_weights(path: Path) -> Mapping[str, object]:
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as problem:
        raise InputError(f"{path} cannot be read as a weight file ({str(problem).splitlines()[0]}): download it again.") from problem
    if not isinstance(weights, Mapping):
        raise InputError(f"{path} holds no table of weights: save the state_dict of torchvision's RAFT.")
    return weights
