"""Arguments of `dualreal generate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..description import Command
from .shared_options import add_base_options, add_size_options, parse_finite, parse_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    add_base_options(parser)
    add_size_options(parser)
    parser.add_argument("--pair", type=Path, help="trained pair (.safetensors, or .pth of the paper's code); none: the base alone")
    parser.add_argument("--prompt", required=True, help="what the video shows, with the trigger of the identity")
    parser.add_argument("--negative-prompt", default="", help="what it does not show")
    parser.add_argument("--reference-image", type=Path, help="photo of the identity, for a conditioned motion side")
    parser.add_argument("--out", type=Path, required=True, help="video file, .mp4 or .gif")
    parser.add_argument("--identity-strength", type=parse_finite, default=1.0, help="factor on the identity side (default: 1)")
    parser.add_argument("--motion-strength", type=parse_finite, default=1.0, help="factor on the motion side (default: 1)")
    parser.add_argument(
        "--blend",
        choices=("learned", "fixed"),
        help="what the pair's network learned, or half its scale each (default: its network if it has one, else its share schedule)",
    )
    parser.add_argument("--adapt-negative", action="store_true", help="let the pair act on the negative prompt too, as in the paper")
    parser.add_argument("--ignore-gate", action="store_true", help="have both sides act whether or not the prompt names them")
    parser.add_argument("--seed", type=parse_seed, default=0)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the base's)")
    parser.add_argument("--guidance-scale", type=parse_finite, help="classifier-free guidance (default: the base's)")
    parser.add_argument("--fps", type=float, help="frames per second of the file (default: the base's)")
    parser.add_argument("--offload", action="store_true", help="keep the DiT in main memory; each block comes to the device to compute")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


GENERATE = Command("generate", "sample a video with a trained pair", add_arguments)
