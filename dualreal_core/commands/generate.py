"""`dualreal generate`: a prompt and a pair to a video."""

from __future__ import annotations

import argparse
from dataclasses import replace

from tqdm import tqdm

from ..api import generate, require_trigger
from ..bases.devices import peak_memory
from ..dataset.photos import open_photo
from ..errors import InputError
from ..method.blend import FixedBlend, LearnedBlend
from ..method.pair import AdapterPair
from ..sampling import default_sampling
from ..storage import load_pair
from ..video import check_fps, write_gif, write_mp4
from .options import check_output_folder, open_base


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
    pair, header, blend = None, None, None
    base = open_base(arguments, offload="blocks")
    if arguments.pair is not None:
        pair, header = load_pair(arguments.pair)
        pair.to(device=base.device, dtype=base.compute_dtype)
        _check_trigger(arguments, pair, (header.get("prompts") or {}).get("trigger") or "")
        half = pair.config.scale / 2
        if arguments.blend == "learned":
            if pair.controller is None:
                raise InputError(f"{arguments.pair} has no network that learned its weights: leave --blend out, or use --blend fixed.")
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
            header=header,
            on_note=lambda note: bar.write(f"note: {note}"),
            follows_prompt=not arguments.ignore_gate,
        )
    fps = arguments.fps or base.default_fps
    if arguments.out.suffix.lower() == ".mp4":
        write_mp4(arguments.out, frames, fps)
    else:
        shown_fps = write_gif(arguments.out, frames, fps)
        if shown_fps < fps:
            print(f"note: players show no GIF at more than {shown_fps:g} frames per second, so this one runs at that instead of {fps:g}")
    print(f"wrote {arguments.out}: {len(frames)} frames of {frames.shape[3]}x{frames.shape[2]} px")
    print("\n".join(peak_memory(base.device)))


def _check_trigger(arguments: argparse.Namespace, pair: AdapterPair, trigger: str) -> None:
    """The prompt must hold the trigger where the identity acts; where the motion acts alone, or a prompt gate decides, a note says what
    is missing."""
    is_gated = pair.gate is not None and not arguments.ignore_gate
    try:
        require_trigger(arguments.prompt, trigger, "The prompt")
    except InputError:
        if not is_gated and arguments.identity_strength != 0 and pair.config.kind("identity") != "none":
            raise
        reason = "so its prompt gate keeps the identity out" if is_gated else "which only its identity side needs, and that is off"
        print(f"note: the prompt lacks the trigger {trigger!r} of the pair, {reason}")
