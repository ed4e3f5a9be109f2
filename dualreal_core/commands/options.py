"""What the arguments that several commands share stand for: a device, a base, a folder that takes files."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from ..bases import Base, load_base
from ..bases.base import Offload, Progress
from ..bases.devices import check_device, default_device, default_dtype, watch_memory
from ..errors import InputError
from .arguments.shared_options import DTYPES, EMBEDDED


def open_device(device: str | None) -> str:
    """The device of that name, or the default one.

    Raises:
        InputError: it cannot be used.
    """
    device = device or default_device()
    check_device(device)
    return device


def check_output_folder(folder: Path) -> None:
    """Tries out whether files can be made in a folder that may not exist yet, before hours of work that end in one; leaves nothing.

    Raises:
        InputError: a file lies in its way, or it takes none.
    """
    existing = folder.absolute()
    try:
        while not existing.exists():
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as problem:
        raise InputError(
            f"{folder} takes no files ({problem.strerror}): it is read-only, full, or a file of that name is in the way; choose another."
        ) from problem


@contextmanager
def shown_progress(what: str, unit: str) -> Iterator[Progress]:
    """A bar on screen, moved by calls of what comes in."""
    with tqdm(desc=what, unit=unit) as bar:

        def moved(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield moved


def open_base(arguments: argparse.Namespace, offload: Offload) -> Base:
    """The base that the options name, and beside it on screen where it computes. Its peak memory is measured from here on.

    Args:
        offload: what `--offload` stands for in this command.

    Raises:
        InputError: the device is not there, or the folder holds no usable model.
    """
    if arguments.base == EMBEDDED:
        device, dtype = open_device(arguments.device or "cpu"), torch.float32
    else:
        device = open_device(arguments.device)
        dtype = getattr(torch, DTYPES[arguments.dtype]) if arguments.dtype else default_dtype(device)
        print(f"device {device}, weights in {next(name for name, known in DTYPES.items() if getattr(torch, known) == dtype)}")
    if arguments.offload and (arguments.base == EMBEDDED or torch.device(device).type == "cpu"):
        print("note: --offload changes nothing here: weights move between an accelerator and main memory, and the embedded base stays")
    watch_memory(device)
    return load_base(arguments.base, dtype, device, arguments.image_encoder, offload if arguments.offload else "none")
