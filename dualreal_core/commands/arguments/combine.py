"""Arguments of `dualreal combine`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command
from .convert import add_base_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument("identity", type=Path, metavar="IDENTITY", help="a LoRA of a subject, or a pair whose identity is taken")
    parser.add_argument("motion", type=Path, metavar="MOTION", help="a LoRA of a motion, or a pair whose motion is taken")
    parser.add_argument("--identity-low", type=Path, metavar="LORA", help="for two experts: the low-noise one's LoRA of the subject")
    parser.add_argument("--motion-low", type=Path, metavar="LORA", help="for two experts: the low-noise one's LoRA of the motion")
    parser.add_argument("--out", type=Path, required=True, help="the pair file (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_base_argument(parser)


COMBINE = Command("combine", "make a pair file of two LoRAs or pairs, without training", add_arguments)
