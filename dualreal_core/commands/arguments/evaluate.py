"""Arguments of `dualreal evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command
from .shared_options import add_device_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help="video files, or folders of them")
    parser.add_argument("--identity", type=Path, nargs="+", default=[], metavar="PHOTO", help="photos of the identity, or folders of them")
    parser.add_argument("--motion", type=Path, nargs="+", default=[], metavar="VIDEO", help="videos of the motion, or folders of them")
    parser.add_argument("--prompt", help="prompt of videos without a text file beside them (default: file names of several words)")
    parser.add_argument("--clip", type=Path, metavar="FOLDER", help="CLIP model in transformers form: CLIP-T, CLIP-I, consistency")
    parser.add_argument("--dino", type=Path, metavar="FOLDER", help="DINOv2 or DINO model in transformers form: DINO-I, motion fidelity")
    parser.add_argument("--raft", type=Path, metavar="FILE", help="weights of torchvision's RAFT: dynamic degree, smoothness, flow")
    add_device_option(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for scores.json")
    parser.add_argument("--overwrite", action="store_true", help="replace the scores of an earlier run")


EVALUATE = Command("evaluate", "score videos against photos of an identity, videos of a motion and their prompts", add_arguments)
