"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from pathlib import Path

import torch

from ..bases import Base, load_base
from ..bases.base import Offload
from ..bases.devices import check_device, default_device, default_dtype, watch_memory
from ..errors import InputError

EMBEDDED = "toyworld"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_base_options(parser: argparse.ArgumentParser) -> None:
    """--base, --dtype, --device, --image-encoder."""
    parser.add_argument("--base", default=EMBEDDED, help=f"{EMBEDDED}, or a diffusers folder of CogVideoX or Wan (default: {EMBEDDED})")
    default = "default: bf16 on an accelerator, fp32 on the CPU and for the embedded base"
    parser.add_argument("--dtype", choices=DTYPES, help=f"precision of the base's weights ({default})")
    add_device_option(parser, "; the embedded base: cpu")
    parser.add_argument("--image-encoder", type=Path, help="folder of a CLIP vision model for reference images (default: the base's own)")


def add_device_option(parser: argparse.ArgumentParser, exception: str = "") -> None:
    """--device."""
    default = f"default: the accelerator, such as cuda or mps, if there is one, else cpu{exception}"
    parser.add_argument("--device", help=f"torch device ({default})")


def open_device(device: str | None) -> str:
    """The device of that name, or the default one.

    Raises:
        InputError: it cannot be used.
    """
    device = device or default_device()
    check_device(device)
    return device


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
        dtype = DTYPES[arguments.dtype] if arguments.dtype else default_dtype(device)
        print(f"device {device}, weights in {next(name for name, known in DTYPES.items() if known == dtype)}")
    if arguments.offload and (arguments.base == EMBEDDED or torch.device(device).type == "cpu"):
        print("note: --offload changes nothing here: weights move between an accelerator and main memory, and the embedded base stays")
    watch_memory(device)
    return load_base(arguments.base, dtype, device, arguments.image_encoder, offload if arguments.offload else "none")
