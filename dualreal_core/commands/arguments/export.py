"""Arguments of `dualreal export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command
from .shared_options import parse_finite

FORMS, DTYPES = ("comfyui", "diffusers", "peft", "kohya"), ("fp32", "bf16", "fp16")
SIDES, TOOLS = ("mix", "both", "identity", "motion"), ("wan2gp", "wrapper")
"""Keys of the tables of `storage` that these name, known without torch; a test compares them."""


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """How and where LoRA files are written."""
    parser.add_argument("--to", choices=FORMS, default=FORMS[0], help="who reads the file: its names and form (default: comfyui)")
    parser.add_argument(
        "--out", type=Path, required=True, help="file (.safetensors), or folder with --to peft; two experts add _high_noise and _low_noise"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights in the file (default: fp32)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument("pair", type=Path, metavar="PAIR", help="a pair file")
    parser.add_argument("--side", choices=SIDES, default="mix", help="a file of both mixed, a file of each, or of one side (default: mix)")
    parser.add_argument(
        "--weights", type=parse_finite, nargs=2, metavar=("IDENTITY", "MOTION"),
        help="fixed weights, 1 is that of an even blend (default: the mean of the blend, or 1 1)",
    )  # fmt: skip
    parser.add_argument(
        "--blend",
        help="weights that change over denoising, of which the file holds the mean: a preset, curves ('identity sigma 1:0.4 0:1.4'), a "
        "file of curves or of Blend Map's data, or 'own' (default: the pair's own, where it has one)",
    )
    add_output_arguments(parser)
    parser.add_argument("--steps", type=int, help="steps of the mean and of --strengths (default: 50)")
    parser.add_argument("--shift", type=parse_finite, help="shift of the model's noise schedule (default: as ComfyUI has it)")
    parser.add_argument("--sigmas", type=parse_finite, nargs="+", metavar="SIGMA", help="noise levels of the steps instead, falling from 1")
    parser.add_argument(
        "--strengths", choices=TOOLS, nargs="+", default=[],
        help="also print strengths for each step, by which these tools follow the blend with the files of each side",
    )  # fmt: skip


EXPORT = Command("export", "write a pair as ordinary LoRA files", add_arguments)
