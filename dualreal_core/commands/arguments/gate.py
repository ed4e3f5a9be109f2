"""Arguments of `dualreal gate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command
from .shared_options import add_base_options, add_words_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    add_base_options(parser)
    parser.add_argument("pair", type=Path, metavar="PAIR", help="pair file, of dualreal train or dualreal combine")
    add_words_arguments(parser, "those that the file tells: of a former gate, of captions, of triggers")
    parser.add_argument("--out", type=Path, required=True, help="pair file to write, .safetensors; it may be PAIR with --overwrite")
    parser.add_argument("--cache-dir", type=Path, help="folder for texts, shared by runs (default: the user's cache)")
    offload = "keep the text encoder's weights in main memory where they are not at work"
    parser.add_argument("--offload", action="store_true", help=offload)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


GATE = Command("gate", "give a pair a prompt gate: each side acts where a prompt names it", add_arguments)
