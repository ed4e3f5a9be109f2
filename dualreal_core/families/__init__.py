"""Families the core knows, by class name of their DiT."""

from __future__ import annotations

from torch import nn

from ..errors import InputError
from .cogvideox import COGVIDEOX
from .description import FamilyDescription, Site
from .wan import WAN

__all__ = ["COGVIDEOX", "FAMILIES", "WAN", "FamilyDescription", "Site", "family_of"]

FAMILIES: dict[str, FamilyDescription] = {family.class_name: family for family in (COGVIDEOX, WAN)}


def family_of(transformer: nn.Module) -> FamilyDescription:
    """The description of a model's class.

    Raises:
        InputError: no family describes that class.
    """
    name = type(transformer).__name__
    if name not in FAMILIES:
        raise InputError(f"{name} is no known video DiT; known are {', '.join(FAMILIES)}: describe it in dualreal_core/families.")
    return FAMILIES[name]
