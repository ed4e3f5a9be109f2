"""Mixed precision: trained weights stay float32 whatever the precision of the base."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from .errors import InputError

if TYPE_CHECKING:
    from .bases import Base
    from .method.pair import AdapterPair


def mixed(base: Base, pair: AdapterPair | None, lowers: bool = False) -> AbstractContextManager[None]:
    """Autocast wherever base and adapters differ in dtype, or the caller wants bfloat16 activations; else nothing.

    Raises:
        InputError: a float16 base is to train float32 adapters, whose gradients would underflow.
    """
    dtype = base.compute_dtype
    differs = pair is not None and any(weight.dtype != dtype for weight in pair.sides.parameters())
    if not differs and not lowers:
        return nullcontext()
    dtype = torch.bfloat16 if dtype == torch.float32 else dtype
    if torch.is_grad_enabled():
        check_trainable(dtype)
    return torch.autocast(torch.device(base.device).type, dtype)


def check_trainable(dtype: torch.dtype) -> None:
    """Raises InputError where gradients of adapters on a base of this dtype would underflow."""
    if dtype == torch.float16:
        raise InputError("Adapters cannot be trained on a float16 base, their gradients would vanish: use --dtype bf16.")
