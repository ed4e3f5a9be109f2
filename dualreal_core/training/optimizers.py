"""Optimizers by name. The torch one is always there; the others need their package."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from ..errors import InputError
from .settings import OptimizerName, TrainSettings

_OPTIMIZERS = {
    "adamw": ("torch.optim", "AdamW", "torch"),
    "adamw8bit": ("bitsandbytes.optim", "AdamW8bit", "bitsandbytes"),
    "prodigy": ("prodigyopt", "Prodigy", "prodigyopt"),
}


def optimizer_class(name: OptimizerName) -> type[torch.optim.Optimizer]:
    """The class of an optimizer.

    Raises:
        InputError: its package is not installed.
    """
    module_name, class_name, package = _OPTIMIZERS[name]
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise InputError(f"The optimizer '{name}' needs {package}: run `pip install {package}`, or use 'adamw'.") from error


def make_optimizer(settings: TrainSettings, part: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer for one part: 'identity', 'motion' or 'controller', after the name of an expert where there are several. Each part
    has its own, so that a part at rest keeps not only its weights but its moments.

    Raises:
        InputError: the optimizer's package is not installed.
    """
    rate = settings.rate(part.rpartition(" ")[2])
    return optimizer_class(settings.optimizer)(
        parameters, lr=rate, betas=(settings.beta1, settings.beta2), eps=settings.eps, weight_decay=settings.weight_decay
    )
