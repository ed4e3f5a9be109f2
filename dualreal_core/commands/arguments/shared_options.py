"""Arguments that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

EMBEDDED = "toyworld"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""What torch calls them."""


def add_base_options(parser: argparse.ArgumentParser) -> None:
    """--base, --dtype, --device, --image-encoder."""
    known = "CogVideoX, Wan, LTX-Video, LTX-2, HunyuanVideo or HunyuanVideo 1.5"
    parser.add_argument("--base", default=EMBEDDED, help=f"{EMBEDDED}, or a diffusers folder of {known} (default: {EMBEDDED})")
    default = "default: bf16 on an accelerator, fp32 on the CPU and for the embedded base"
    parser.add_argument("--dtype", choices=DTYPES, help=f"precision of the base's weights ({default})")
    add_device_option(parser, "; the embedded base: cpu")
    parser.add_argument("--image-encoder", type=Path, help="folder of a CLIP vision model for reference images (default: the base's own)")


def add_device_option(parser: argparse.ArgumentParser, exception: str = "") -> None:
    """--device."""
    default = f"default: the accelerator, such as cuda or mps, if there is one, else cpu{exception}"
    parser.add_argument("--device", help=f"torch device ({default})")


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


def add_words_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Of commands that fit a prompt gate."""
    for role, example in (("identity", "ohwx man"), ("motion", "plays the violin, playing a fiddle")):
        told = f"words of a prompt that name the {role}, several ones parted by commas: '{example}' (default: {default})"
        parser.add_argument(f"--{role}-words", default="", metavar="WORDS", help=told)
