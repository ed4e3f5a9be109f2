"""LoRA files as one side of a pair for a MODEL."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from comfy.model_patcher import ModelPatcher

from ..dualreal_core.families.expert_names import named_expert
from ..dualreal_core.method.pair import Role
from ..dualreal_core.storage.lora_file import LoadedSide, experts_in, load_side
from .base_weights import weights_of_model
from .model_file import model_file
from .patching import diffusion_model
from .types import BesideWeight, TrainedPair

__all__ = ["experts_in", "import_lora", "read_side"]


def import_lora(model: ModelPatcher, path: Path, role: Role, expert: str | None = None) -> tuple[TrainedPair, str]:
    """A pair whose side `role` is the LoRA, and a sentence on what of the file acts otherwise or not at all, empty where all of it does.

    Args:
        expert: which of two the MODEL is; None: by the name of its file. It decides what is taken of a file that holds LoRAs of both.

    Raises:
        InputError: the file is damaged, of another model, or of a kind that is not known.
    """
    side = read_side(model, path, role, expert)
    note = side.report.sentence()
    if note:
        logging.info(note)
    return trained_pair(side, role), note


def read_side(model: ModelPatcher, path: Path, role: Role, expert: str | None = None) -> LoadedSide:
    """What a file is for a MODEL, with its report. See `import_lora`."""
    with torch.inference_mode(False):
        return load_side(
            diffusion_model(model), path, role, expert=expert or named_expert(model_file(model)), weight_of=weights_of_model(model)
        )


def trained_pair(side: LoadedSide, role: Role) -> TrainedPair:
    """A side as what wires carry."""
    return TrainedPair(side.pair, side.header, tuple(BesideWeight(role, update) for update in side.beside))
