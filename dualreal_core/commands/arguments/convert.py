"""Arguments of `dualreal convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command
from .export import add_output_arguments


def add_base_argument(parser: argparse.ArgumentParser) -> None:
    """Of commands that read LoRA files without a model at work."""
    parser.add_argument(
        "--base", type=Path,
        help="folder of the model in diffusers layout, of which its configuration is enough for all but DoRA and its kin (default: a "
        "published model that the file is recognised to be for)",
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument("lora", type=Path, metavar="LORA", help="a LoRA file of any program, or a folder that peft wrote")
    add_output_arguments(parser)
    add_base_argument(parser)


CONVERT = Command("convert", "write a LoRA file of one program in the names and form of another", add_arguments)
