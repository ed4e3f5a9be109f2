"""Arguments of `dualreal train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...training.recipes import RECIPES
from ..description import Command
from .shared_options import add_base_options, add_size_options, add_words_arguments, parse_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of the command."""
    add_base_options(parser)
    add_size_options(parser)
    parser.add_argument("--identity", type=Path, required=True, help="folder of photos")
    parser.add_argument("--motion", type=Path, required=True, help="folder of clips")
    parser.add_argument("--prompt-identity", help="caption of photos that have none of their own, such as 'dog *'")
    parser.add_argument("--prompt-motion", help="caption of clips that have none of their own")
    parser.add_argument("--trigger", default="*", help="word that stands for the identity (default: *)")
    add_words_arguments(parser, "those of trigger and captions")
    parser.add_argument("--no-prompt-gate", action="store_true", help="both sides act on every prompt, also on those that name neither")
    parser.add_argument("--fps", type=float, help="frame rate clips are resampled to (default: the base's)")
    parser.add_argument("--out", type=Path, required=True, help="pair file to write, .safetensors")
    parser.add_argument("--run-dir", type=Path, help="folder for state, metrics and samples (default: OUT.run)")
    parser.add_argument("--cache-dir", type=Path, help="folder for latents and text, shared by runs (default: the user's cache)")
    parser.add_argument("--recipe", choices=RECIPES, default="dualreal", help="defaults: ours or the paper's (default: dualreal)")
    parser.add_argument("--config", type=Path, help="TOML file with [train], [pair] and [crops] settings")
    parser.add_argument("--steps", type=int, help="optimizer steps, of which warm-up takes a fifth at most (default: the recipe's)")
    parser.add_argument("--seed", type=parse_seed, help="seed of weights, order and noise (default: the recipe's)")
    parser.add_argument("--evaluate-every", type=int, metavar="N", help="evaluate every N steps, 0 never (default: the recipe's)")
    parser.add_argument(
        "--validation-split",
        type=float,
        metavar="X",
        help="photos and clips to evaluate on instead of training: a share below 1, or a number",
    )
    parser.add_argument("--save-best", action="store_true", default=None, help="write the pair with the lowest loss, not the last one")
    parser.add_argument("--patience", type=int, metavar="N", help="stop after N evaluations in which neither side improves")
    parser.add_argument("--resume", action="store_true", help="continue the run of the same output; more --steps make it longer")
    parser.add_argument("--stop-after", type=int, metavar="N", help="stop after N steps; continue later with --resume")
    parser.add_argument("--save-every", type=int, default=100, metavar="N", help="checkpoint every N steps (default: 100)")
    parser.add_argument("--sample-every", type=int, metavar="N", help="write a sample video every N steps, of the size trained on")
    parser.add_argument("--sample-prompt", help="prompt of those samples")
    offload = "keep the DiT in main memory while a sample is decoded, instead of reading it from its files again"
    parser.add_argument("--offload", action="store_true", help=offload)
    parser.add_argument("--consent", help="note kept in the pair: who agreed to the use of these photos and clips")


TRAIN = Command(
    "train",
    "train an identity (photos) and a motion (clips) together",
    add_arguments,
    "what was encoded and trained is kept, add --resume to continue; if nothing was yet, leave it out",
)
