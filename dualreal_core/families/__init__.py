"""Families the core knows, by package and class name of their DiT."""

from __future__ import annotations

from torch import nn

from ..errors import InputError
from .cogvideox import COGVIDEOX, COMFY_COGVIDEOX
from .description import BlockList, FamilyDescription, Site, is_linear
from .hunyuan import COMFY_HUNYUAN, HUNYUAN, HUNYUAN_15
from .kandinsky import COMFY_KANDINSKY5
from .ltx import COMFY_LTX, COMFY_LTX2, LTX, LTX2
from .minimax import COMFY_MINIMAX_H3
from .wan import COMFY_WAN, COMFY_WAN_ANIMATE2, COMFY_WAN_DANCER, COMFY_WAN_S2V, WAN, WAN_LIKE

__all__ = ["CANONICAL", "COGVIDEOX", "DESCRIPTIONS", "WAN", "WAN_LIKE", "BlockList", "FamilyDescription", "Site", "family_of", "is_linear"]

DESCRIPTIONS: tuple[FamilyDescription, ...] = (
    COGVIDEOX,
    WAN,
    COMFY_COGVIDEOX,
    COMFY_WAN,
    COMFY_WAN_ANIMATE2,
    COMFY_WAN_S2V,
    COMFY_WAN_DANCER,
    COMFY_LTX,
    COMFY_LTX2,
    COMFY_HUNYUAN,
    COMFY_MINIMAX_H3,
    COMFY_KANDINSKY5,
    LTX,
    LTX2,
    HUNYUAN,
    HUNYUAN_15,
    *WAN_LIKE,
)
CANONICAL: dict[str, FamilyDescription] = {family.name: family for family in reversed(DESCRIPTIONS)}
"""Per family name, the description whose names pair and LoRA files use: the first one above."""


def family_of(transformer: nn.Module) -> FamilyDescription:
    """The description of a model's class.

    Raises:
        InputError: no family describes that class.
    """
    for kind in type(transformer).__mro__:
        for family in DESCRIPTIONS:
            if (kind.__module__.partition(".")[0], kind.__name__) == (family.package, family.class_name):
                return family
    known = ", ".join(sorted({family.class_name for family in DESCRIPTIONS}))
    raise InputError(f"{type(transformer).__name__} is no known video DiT; known are {known}: describe it in dualreal_core/families.")
