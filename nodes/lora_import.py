"""LoRA files, in every key naming the host knows, as one side of a pair."""

from __future__ import annotations

from pathlib import Path

from comfy.model_patcher import ModelPatcher

from ..dualreal_core.errors import InputError
from ..dualreal_core.pair import Role
from .types import TrainedPair


def import_lora(model: ModelPatcher, path: Path, role: Role) -> TrainedPair:
    raise InputError("LoRA import is being written: use a pair.")
