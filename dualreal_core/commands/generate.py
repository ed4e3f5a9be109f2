"""`dualreal generate`: a prompt and a pair to a video."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..api import generate, require_trigger
from ..dataset.photos import open_photo
from ..errors import InputError
from ..families.base_record import base_difference
from ..method.attach import check_fit
from ..method.blend import FixedBlend, LearnedBlend
from ..sampling import default_sampling
from ..storage import load_pair
from ..video import check_fps, write_gif, write_mp4
from .options import add_base_options, add_size_options, check_output_folder, open_base, parse_finite, parse_seed

HELP = "sample a video with a trained pair"


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
        help="the pair's StageBlender, or half its scale each (default: learned if it has one, else its share schedule if it has one)",
    )
    parser.add_argument("--adapt-negative", action="store_true", help="let the pair act on the negative prompt too, as in the paper")
    parser.add_argument("--seed", type=parse_seed, default=0)
    parser.add_argument("--steps", type=int, help="denoising steps (default: the base's)")
    parser.add_argument("--guidance-scale", type=parse_finite, help="classifier-free guidance (default: the base's)")
    parser.add_argument("--fps", type=float, help="frames per second of the file (default: the base's)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(arguments: argparse.Namespace) -> None:
    """Samples and writes the video."""
    if arguments.out.suffix.lower() not in (".mp4", ".gif"):
        raise InputError(f"{arguments.out} is neither .mp4 nor .gif: choose one of them.")
    if arguments.out.exists() and not arguments.overwrite:
        raise InputError(f"{arguments.out} exists: choose another --out, or add --overwrite.")
    if arguments.out.is_dir():
        raise InputError(f"{arguments.out} is a folder: choose another --out.")
    check_output_folder(arguments.out.parent)
    if arguments.fps is not None:
        check_fps(arguments.fps)
    if arguments.reference_image is not None:
        open_photo(arguments.reference_image)
    pair, blend = None, None
    base = open_base(arguments)
    if arguments.pair is not None:
        pair, header = load_pair(arguments.pair)
        pair.to(device=arguments.device, dtype=base.compute_dtype)
        require_trigger(arguments.prompt, (header.get("prompts") or {}).get("trigger") or "", "The prompt")
        check_fit(base.transformer, pair)
        difference = base_difference(header.get("base"), base.transformer, Path(base.name).resolve().name)
        if difference is not None:
            print(f"note: {difference}")
        half = pair.config.scale / 2
        if arguments.blend == "learned":
            if pair.controller is None:
                raise InputError(f"{arguments.pair} has no StageBlender: use --blend fixed.")
            blend = LearnedBlend(pair.controller)
        elif arguments.blend == "fixed":
            blend = FixedBlend(half, half)
        if pair.config.condition_dim("motion") is not None and arguments.reference_image is None:
            print("note: this pair's motion side was trained with reference images; without --reference-image it runs unconditioned")
    given = {
        "num_frames": arguments.num_frames,
        "height": arguments.size and arguments.size[0],
        "width": arguments.size and arguments.size[1],
        "num_steps": arguments.steps,
        "guidance_scale": arguments.guidance_scale,
        "adapts_negative": arguments.adapt_negative,
    }
    try:
        settings = replace(default_sampling(base), **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise InputError(str(error)) from error
    with tqdm(total=settings.num_steps, desc="sampling", unit="step") as bar:
        frames = generate(
            base,
            pair,
            arguments.prompt,
            arguments.reference_image,
            arguments.seed,
            arguments.negative_prompt,
            blend,
            (arguments.identity_strength, arguments.motion_strength),
            settings,
            progress=lambda done, total: bar.update(),
        )
    write = write_mp4 if arguments.out.suffix.lower() == ".mp4" else write_gif
    write(arguments.out, frames, arguments.fps or base.default_fps)
    print(f"wrote {arguments.out}: {len(frames)} frames of {frames.shape[3]}x{frames.shape[2]} px")
