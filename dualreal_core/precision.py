"""Precision of activations. Trained weights stay float32 whatever that of the base, and adapters compute in that of the tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from .bases import Base
from .errors import InputError


def lowered(base: Base, is_asked_for: bool) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where that is asked for on a float32 base; any other computes as it is, when it trains as when it samples."""
    if not is_asked_for or base.compute_dtype != torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(base.device).type, torch.bfloat16)


def check_trainable(dtype: torch.dtype) -> None:
    """Raises InputError where gradients of adapters on a base of this dtype would underflow."""
    if dtype == torch.float16:
        raise InputError("Adapters cannot be trained on a float16 base, their gradients would vanish: use --dtype bf16.")
