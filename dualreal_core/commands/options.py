"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from pathlib import Path

import torch

from ..bases import Base, load_base
from ..errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_base_options(parser: argparse.ArgumentParser) -> None:
    """--base, --dtype, --device, --image-encoder."""
    parser.add_argument("--base", default="toyworld", help="toyworld, or a diffusers folder of CogVideoX or Wan (default: toyworld)")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="precision of the base's weights (default: fp32)")
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")
    parser.add_argument("--image-encoder", type=Path, help="folder of a CLIP vision model for reference images (default: the base's own)")


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """--size, --num-frames."""
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="width and height in px (default: the base's)")
    parser.add_argument("--num-frames", type=int, help="frames of a clip (default: the base's)")


def parse_size(text: str) -> tuple[int, int]:
    """'720x480' -> (480, 720), as (height, width)."""
    match = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write width and height as in 720x480")
    return int(match[2]), int(match[1])


def parse_seed(text: str) -> int:
    """A whole number that a random generator takes."""
    if re.fullmatch(r"[+-]?\d+", text) is None or not -(2**63) <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; write a whole number of at most 18 digits")
    return int(text)


def parse_finite(text: str) -> float:
    """A number; 'nan' and 'inf', which Python takes for numbers, would give a video of noise without a word."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write one as in 0.8")
    return number


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


def check_device(device: str) -> None:
    """Raises InputError where torch has no such device or cannot use it."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device!r} cannot be used ({str(error).splitlines()[0]}): use --device cpu.") from error


def open_base(arguments: argparse.Namespace) -> Base:
    """The base that the options name.

    Raises:
        InputError: the device is not there, or the folder holds no usable model.
    """
    check_device(arguments.device)
    return load_base(arguments.base, DTYPES[arguments.dtype], arguments.device, arguments.image_encoder)
