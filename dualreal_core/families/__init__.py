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
TITLES: dict[str, str] = {
    "cogvideox": "CogVideoX",
    "wan": "Wan 2.1 and 2.2",
    "ltx": "LTX-Video",
    "ltx2": "LTX-2",
    "hunyuan": "HunyuanVideo",
    "minimax-h3": "MiniMax-H3",
    "kandinsky5": "Kandinsky 5",
}
"""Per family name, its models as people call them."""


def family_of(transformer: nn.Module) -> FamilyDescription:
    """The description of a model's class.

    Raises:
        InputError: no family describes that class.
    """
    for kind in type(transformer).__mro__:
        for family in DESCRIPTIONS:
            if (kind.__module__.partition(".")[0], kind.__name__) == (family.package, family.class_name):
                return family
    package, all_packages = type(transformer).__module__.partition(".")[0], sorted({family.package for family in DESCRIPTIONS})
    packages = [package] if package in all_packages else all_packages
    classes = sorted({family.class_name for family in DESCRIPTIONS if family.package in packages})
    raise InputError(
        f"This model is a {type(transformer).__name__} of {package}, and pairs are for video models: {', '.join(TITLES.values())}. Looked "
        f"for was a class of {' or '.join(packages)} that is, or is made from, {', '.join(classes)}. Use such a model; to add one, "
        "describe its class in dualreal_core/families."
    )
