"""Pictures for people to look at: frames of videos, losses of a run, weights of the blend, tables of scores."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..files.atomic import atomic_path
from .contact_sheet import contact_sheet
from .curves import loss_curves
from .heat_map import blend_map
from .table import score_table

__all__ = ["blend_map", "contact_sheet", "loss_curves", "save", "score_table"]


def save(path: Path, image: Image.Image) -> None:
    """Writes a picture atomically, in the format its suffix names.

    Raises:
        InputError: the suffix names no picture format, or the file cannot be written.
    """
    path = Path(path)
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path} has a suffix that names no picture format: give a name that ends in .png.")
    with atomic_path(path) as temporary:
        image.save(temporary)
