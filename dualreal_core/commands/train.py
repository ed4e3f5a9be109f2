"""`dualreal train`: photos and clips, as they lie on disk, to a pair file."""

from __future__ import annotations

import argparse
import contextlib
import signal
from dataclasses import fields, replace
from pathlib import Path

import torch
from tqdm import tqdm

from ..api import Training, TrainingData, check_recipe, latent_cache, prepare_data
from ..bases import Base
from ..bases.devices import peak_memory
from ..errors import InputError
from ..plots import loss_curves, save
from ..precision import check_trainable
from ..sampling import default_sampling, sample
from ..training.optimizers import optimizer_class
from ..training.recipes import RECIPES, Recipe, read_recipe, with_train
from ..training.scores import Evaluation
from ..video import check_fps, write_mp4
from .options import check_output_folder, open_base, shown_progress


def run(arguments: argparse.Namespace) -> None:
    """Scans, reports, prepares, trains, saves."""
    out, directory = arguments.out, arguments.run_dir or Path(f"{arguments.out}.run")
    if out.suffix != ".safetensors":
        raise InputError(f"{out} does not end in .safetensors: choose such a name.")
    if arguments.sample_every and not arguments.sample_prompt:
        raise InputError("--sample-every needs --sample-prompt: say what the samples show.")
    counts = arguments.num_frames, arguments.save_every, arguments.stop_after, arguments.sample_every
    if any(count is not None and count < 1 for count in counts):
        raise InputError("--num-frames, --save-every, --stop-after and --sample-every must be at least 1.")
    if arguments.fps is not None:
        check_fps(arguments.fps)
    if not arguments.resume and out.exists():
        raise InputError(f"{out} exists: choose another --out, or add --resume to continue its run.")
    check_output_folder(out.parent)
    if arguments.resume and not directory.is_dir():
        raise InputError(f"{directory} holds no run to resume: start it without --resume.")
    recipe = _recipe(arguments)
    optimizer_class(recipe.train.optimizer)
    base = open_base(arguments, offload="model")
    check_trainable(base.compute_dtype)
    check_recipe(base, recipe)
    cache = arguments.cache_dir or latent_cache()
    _check_cache(cache)
    data = TrainingData(**{item.name: getattr(arguments, item.name) for item in fields(TrainingData)})
    check_output_folder(directory)
    directory.mkdir(parents=True, exist_ok=True)  # by this --resume knows a run that was killed before anything else was in it
    try:
        manifests = data.scan(base, recipe)
    except InputError:
        with contextlib.suppress(OSError):  # there is a run in it already
            directory.rmdir()
        raise
    for manifest in manifests.values():
        print("\n".join(manifest.report.lines()))
    words, without_gate = data.gate_words(manifests, recipe)
    if without_gate:
        print(f"note: {without_gate}")
    print(f"latents and text are kept in {cache}")
    with shown_progress("encoding", "sample") as encoded:
        prepared = prepare_data(base, manifests, cache, encoded)
    texts = _encode_sample_texts(base, arguments)
    prompts = {"identity": arguments.prompt_identity, "motion": arguments.prompt_motion, "trigger": arguments.trigger}
    training = Training(base, prepared, recipe, directory, {"prompts": prompts, "consent": arguments.consent})
    for note in training.notes:
        print(note)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _train(training, base, arguments, texts)
        steps = training.directory.metrics()
        if steps:
            save(directory / "loss.png", loss_curves(steps, "Training loss", training.directory.evaluated_losses()))
        if not training.is_over:
            print("\n".join([f"stopped; continue with --resume (state in {directory})", *peak_memory(base.device)]))
            return
        training.save(out)
        if words is not None:
            with shown_progress("encoding prompts for the gate", "prompt") as encoded:
                report = training.fit_gate(words, cache, encoded)
            training.save(out)
            print(report.line())
    finally:
        signal.signal(signal.SIGTERM, before)
        training.close()
    print("\n".join([*training.directory.report(), f"wrote {out}", *peak_memory(base.device)]))


def _check_cache(folder: Path) -> None:
    try:
        check_output_folder(folder)
    except InputError as problem:
        raise InputError(f"The cache of latents: {problem} --cache-dir names it.") from problem


def _encode_sample_texts(base: Base, arguments: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The prompt of the samples and the empty one, before the DiT is in memory; None where none are asked for."""
    if not arguments.sample_every:
        return None
    with base.encoders(), torch.no_grad():
        return base.encode_text(arguments.sample_prompt), base.encode_text("")


def _train(training: Training, base: Base, arguments: argparse.Namespace, texts: tuple[torch.Tensor, torch.Tensor] | None) -> None:
    steps = training.recipe.train.steps
    if texts is not None:
        text, negative = texts
        settings = default_sampling(base)  # at the size and length that are trained on, which the machine is known to bear
        height, width = arguments.size or base.default_size
        settings = replace(settings, height=height, width=width, num_frames=arguments.num_frames or settings.num_frames)
    with tqdm(total=steps, desc="training", unit="step") as bar:

        def evaluated(evaluation: Evaluation) -> None:
            left = ", ".join(f"{role} {side.loss_ratio:.0%}" for role, side in evaluation.sides.items())
            bar.write(f"step {evaluation.step}: of the base's loss is left: {left}")

        # A run that was killed while it looked through the files or encoded has no settings yet: to resume it is to begin its training.
        is_resumed = arguments.resume and training.directory.settings_file.exists()
        taken = training.steps(is_resumed, arguments.stop_after, arguments.save_every, evaluated, bar.write)
        with contextlib.closing(taken) as done_steps:
            for done in done_steps:
                bar.update(done.step - bar.n)
                bar.set_postfix_str(f"{done.role} loss {done.loss:.4f}")
                if texts is not None and done.step % arguments.sample_every == 0:
                    latents = sample(base, [text], negative, settings, training.attachment)
                    with base.encoders():
                        frames = base.decode_latents(latents[0]).detach()
                    write_mp4(training.directory.path / f"sample-{done.step:06d}.mp4", frames, base.default_fps)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    recipe = RECIPES[arguments.recipe]
    if arguments.config is not None:
        recipe = read_recipe(arguments.config, recipe)
    if arguments.no_prompt_gate:
        recipe = replace(recipe, prompt_gate=False)
    names = ("steps", "seed", "evaluate_every", "validation_split", "save_best", "patience")
    try:
        return with_train(recipe, **{name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None})
    except ValueError as error:
        raise InputError(str(error)) from error
