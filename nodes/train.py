"""Training Settings and the Joint Trainer."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import comfy.model_management
import folder_paths
from comfy_api.latest import io, ui

from ..dualreal_core.api import Training
from ..dualreal_core.dataset.cache import PreparedSet
from ..dualreal_core.errors import InputError
from ..dualreal_core.method.pair import Role, base_sizes
from ..dualreal_core.training.loop import METHOD
from ..dualreal_core.training.recipes import DUALREAL, Recipe
from ..dualreal_core.training.run import RunDirectory
from .comfy_base import HostBase
from .patching import ready_to_train
from .train_preview import TrainingView
from .types import CATEGORY, LossMapType, PairType, SettingsType, TrainedPair, TrainerSettings

KINDS = ("lora", "bottleneck")
COURSES = {"motion fades": DUALREAL.pair["course"], "even": ()}
NO_CONTROLLER = 0.5
"""The floor at which nothing would be left for a StageBlender to decide."""
PRECISIONS = {"as the model": "fp32", "bf16": "bf16"}
RUN_NAME = re.compile(r"[\w][\w .-]{0,99}")


class TrainingSettings(io.ComfyNode):
    """Everything about training but model and data."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="DualRealTrainingSettings",
            display_name="Training Settings",
            category=CATEGORY,
            description="How the Joint Trainer trains. The toy-world benchmark chose the method's defaults; steps, rate and batches are a "
            "start, as no large model was tried yet.",
            inputs=[
                io.Int.Input("steps", default=1000, min=1, max=100000, tooltip="Optimizer steps of both sides together."),
                io.Combo.Input("adapter", options=list(KINDS), default="lora",
                    tooltip="'lora' on attention and feed-forward layers learns motions fastest; 'bottleneck' is the paper's adapter."),
                io.Int.Input("width", default=32, min=1, max=1024, tooltip="Rank of the LoRA, or hidden width of the bottleneck."),
                io.Float.Input("learning_rate", default=1e-3, min=1e-6, max=0.1, step=1e-5,
                    tooltip="Peak rate of the optimizer: warm-up, then cosine to 0."),
                io.Int.Input("seed", default=0, min=0, max=2**32 - 1, control_after_generate=False,
                    tooltip="Of the adapters' first weights and of every random draw: the same seed trains the same pair."),
                io.Float.Input("motion_ratio", default=0.5, **share, advanced=True,
                    tooltip="Share of the steps that train the motion; the others train the identity."),
                io.Int.Input("identity_batch", default=1, min=1, max=256, advanced=True, tooltip="Samples per identity step."),
                io.Int.Input("motion_batch", default=1, min=1, max=256, advanced=True, tooltip="Samples of each batch of clips."),
                io.Int.Input("accumulation", default=1, min=1, max=256, advanced=True,
                    tooltip="Batches per optimizer step, all for one side: larger effective batches in the same memory."),
                io.Int.Input("warmup_steps", default=50, min=0, max=100000, advanced=True, tooltip="Steps over which the rate rises."),
                io.Float.Input("resting_drop", default=DUALREAL.train.resting_drop, **share, advanced=True,
                    tooltip="Share of the steps without the resting side. Where it is in, the trained side learns to undo it."),
                io.Float.Input("floor", default=DUALREAL.pair["floor"], min=0.0, max=NO_CONTROLLER, step=0.01, advanced=True,
                    tooltip="Bounds the learned blend, to 0.5 - floor about its course: 0 is as published, 0.49 nearly fixed; 0.5 has no "
                    "StageBlender."),
                io.Int.Input("groups", default=7, min=1, max=64, advanced=True,
                    tooltip="Groups of consecutive blocks with a blend of their own; reduced to the model's number of blocks."),
                io.Combo.Input("precision", options=list(PRECISIONS), default="as the model", advanced=True,
                    tooltip="Of the activations. Trained weights and optimizer state are always fp32."),
                io.Boolean.Input("gradient_checkpointing", default=True, advanced=True,
                    tooltip="Runs each block again for the backward pass: slower, in much less memory."),
                io.Int.Input("save_every", default=100, min=1, max=100000, advanced=True,
                    tooltip="Steps between checkpoints. An interrupt saves one as well."),
                io.Int.Input("preview_every", default=50, min=0, max=100000, advanced=True,
                    tooltip="Steps between pictures on the trainer: loss curves, and a sample if it is wired for one. 0 shows none."),
                io.Int.Input("evaluate_every", default=DUALREAL.train.evaluate_every, min=0, max=100000, optional=True, advanced=True,
                    tooltip="Steps between evaluations at fixed noise, for the report on what limits the result. 0 makes none."),
                io.Float.Input("held_out", default=0.0, min=0.0, max=0.9, step=0.01, optional=True, advanced=True,
                    tooltip="Share of photos and of clips to evaluate on instead of training; 3 of each always remain to train on."),
                io.Boolean.Input("keep_best", default=False, optional=True, advanced=True,
                    tooltip="Gives the pair of the evaluation with the lowest loss instead of the last one."),
                io.Int.Input("patience", default=0, min=0, max=1000, optional=True, advanced=True,
                    tooltip="Stops after so many evaluations in which neither side improved. 0 does all steps."),
                io.Combo.Input("course", options=list(COURSES), default="motion fades", optional=True, advanced=True,
                    tooltip="What the learned blend starts from: the motion leads early and the identity late, or even as published."),
                io.Float.Input("identity_cross_ratio", default=DUALREAL.train.identity_cross_ratio, **share, optional=True, advanced=True,
                    tooltip="Share of the identity's steps that also see clips, to leave the motion there alone. 0 is as published."),
                io.Float.Input("course_focus", default=DUALREAL.train.course_focus, min=0.0, max=8.0, step=0.1, optional=True,
                    advanced=True,
                    tooltip="How far each side's steps gather where in denoising the course favours it. 0 is as published."),
                io.Float.Input("identity_learning_rate", default=0.0, min=0.0, max=0.1, step=1e-5, optional=True, advanced=True,
                    tooltip="Peak rate of the identity alone, where it should differ. 0: learning_rate."),
            ],
            outputs=[SettingsType.Output(display_name="settings", tooltip="For the Joint Trainer.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, steps, adapter, width, learning_rate, seed, motion_ratio, identity_batch, motion_batch, accumulation, warmup_steps,
        resting_drop, floor, groups, precision, gradient_checkpointing, save_every, preview_every,
        evaluate_every=DUALREAL.train.evaluate_every, held_out=0.0, keep_best=False, patience=0, course="motion fades",
        identity_cross_ratio=DUALREAL.train.identity_cross_ratio, course_focus=DUALREAL.train.course_focus,
        identity_learning_rate=0.0,
    ) -> io.NodeOutput:  # fmt: skip
        if not evaluate_every and (held_out or keep_best or patience):
            raise InputError("held_out, keep_best and patience rest on evaluations, but evaluate_every is 0: raise it, or reset them.")
        train = replace(
            DUALREAL.train, steps=steps, learning_rate=learning_rate, seed=seed, motion_ratio=motion_ratio, identity_batch=identity_batch,
            motion_batch=motion_batch, accumulation=accumulation, warmup_steps=min(warmup_steps, steps // 5), resting_drop=resting_drop,
            precision=PRECISIONS[precision], gradient_checkpointing=gradient_checkpointing, evaluate_every=evaluate_every,
            held_out=held_out, keeps_best=keep_best, patience=patience, identity_cross_ratio=identity_cross_ratio,
            course_focus=course_focus, identity_learning_rate=identity_learning_rate or None,
        )  # fmt: skip
        blend = {"has_controller": False, "floor": 0.0} if floor >= NO_CONTROLLER else {"floor": floor}
        pair = {
            **DUALREAL.pair, "identity_kind": adapter, "motion_kind": adapter, "rank": width, "alpha": float(width),
            "bottleneck_dim": width, "num_groups": groups, "course": COURSES[course], **blend,
        }  # fmt: skip
        recipe = replace(DUALREAL, name="comfyui", train=train, pair=pair)
        return io.NodeOutput(TrainerSettings(recipe, save_every, preview_every))


class JointTrainer(io.ComfyNode):
    """Trains an identity and a motion together on the MODEL that is wired."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealJointTrainer",
            display_name="Joint Trainer",
            category=CATEGORY,
            description="Trains an identity and a motion together. Interrupted, it saves; run again, it continues exactly where it was.",
            search_aliases=["dualreal", "train lora", "video lora", "identity motion training"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The video model: Wan, LTX-Video, HunyuanVideo or CogVideoX. It is not changed."),
                SettingsType.Input("settings", tooltip="From Training Settings."),
                io.Latent.Input("identity_latents", tooltip="One latent per photo, from Identity Dataset or a stock dataset node."),
                io.Conditioning.Input("identity_conditioning", tooltip="One caption per photo, or a single one for all."),
                io.Latent.Input("motion_latents", tooltip="One latent per clip, from Motion Dataset or a stock dataset node."),
                io.Conditioning.Input("motion_conditioning", tooltip="One caption per clip, or a single one for all."),
                io.String.Input("name", default="my pair",
                    tooltip="Names the run's folder in output/dualreal/runs: letters, digits, spaces, dots, dashes."),
                io.Mask.Input("identity_masks", optional=True,
                    tooltip="One mask per photo, 1 where the subject is: the background then counts a tenth."),
                io.ClipVisionOutput.Input("motion_references", optional=True,
                    tooltip="One image embedding per clip: lets the motion side tell a clip's appearance from its movement. For the "
                    "adapter 'bottleneck'; a LoRA takes none."),
                io.Conditioning.Input("preview_conditioning", optional=True,
                    tooltip="A prompt to sample from the half-trained pair whenever a preview is due; needs the VAE as well."),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the sample of a preview."),
            ],
            outputs=[
                PairType.Output(display_name="pair", tooltip="The trained pair, for Apply StageBlender and Save Pair."),
                LossMapType.Output(display_name="loss_map", tooltip="Loss of each step on its own data, for the stock Plot Loss Graph."),
                io.Int.Output(display_name="steps", tooltip="The step that training reached."),
                io.String.Output(display_name="report",
                    tooltip="What limits the result, with the numbers it rests on; empty without evaluations."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, settings, identity_latents, identity_conditioning, motion_latents, motion_conditioning, name,
        identity_masks=None, motion_references=None, preview_conditioning=None, vae=None,
    ) -> io.NodeOutput:  # fmt: skip
        wanted: TrainerSettings = settings[0]
        references = _wired(motion_references)
        if references and wanted.recipe.pair["motion_kind"] == "lora":
            raise InputError(
                "motion_references are wired, and a LoRA cannot take them: set adapter to 'bottleneck' in Training Settings, or unwire "
                "them."
            )
        width = int(references[0].image_embeds.shape[-1]) if references else None
        with ready_to_train(model[0]) as patcher:
            base = HostBase(patcher, width)
            data = {
                "identity": base.prepare("identity", identity_latents, identity_conditioning, _wired(identity_masks)),
                "motion": base.prepare("motion", motion_latents, motion_conditioning, (), references),
            }
            recipe = _fitted(wanted.recipe, base)
            directory, note = _run_directory(name[0], base, data, recipe)
            view = TrainingView(cls.hidden.unique_id, base, recipe.train.steps, wanted.preview_every, note)
            view.prepare_sample(_wired(preview_conditioning), _wired(vae), data["motion"].items[0])
            training = Training(base, data, recipe, directory)
            try:
                is_resumed = training.directory.settings_file.exists()
                for done in training.steps(is_resumed, save_every=wanted.save_every, on_evaluation=view.evaluated):
                    view.show(done, training)
                    comfy.model_management.throw_exception_if_processing_interrupted()
                training.save(directory / "pair.safetensors")
            finally:
                training.close()
            losses = [record["loss"] for record in training.directory.metrics()]
            step, report = len(losses), "\n".join(training.directory.report())
        pair = TrainedPair(training.pair.cpu().requires_grad_(False), training.result_header)
        return io.NodeOutput(pair, {"loss": losses}, step, report, ui=ui.PreviewText(view.summary(step, losses, report)))


def _wired(values: list | None) -> list:
    """What an optional list input holds, without the empty entries of an unwired one."""
    return [value for value in values or [] if value is not None]


def _fitted(recipe: Recipe, base: HostBase) -> Recipe:
    """The recipe with no more groups than the model has blocks."""
    groups = min(recipe.pair["num_groups"], base_sizes(base.transformer)["num_blocks"])
    return replace(recipe, pair={**recipe.pair, "num_groups": groups})


def _run_directory(name: str, base: HostBase, data: dict[Role, PreparedSet], recipe: Recipe) -> tuple[Path, str]:
    """The folder of this very run, and a sentence on how it relates to others of its name.

    The folder is named by everything that decides the result: the same graph finds its run again, another one starts its own.
    """
    if not RUN_NAME.fullmatch(name) or ".." in name:
        raise InputError(f"{name!r} cannot name a run: use letters, digits, spaces, dots and dashes, without slashes.")
    asked = {
        "method": METHOD, "base": base.fingerprint, "condition": base.condition_dim, "objective": asdict(base.objective),
        "pairs": base.applied,
        "train": asdict(recipe.train), "pair": dict(recipe.pair),
        **{role: [*part.fingerprints] for role, part in data.items()},
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    runs = Path(folder_paths.get_output_directory()) / "dualreal" / "runs" / name
    directory = runs / key
    own = RunDirectory(directory)
    if own.settings_file.exists():
        return directory, f"Continues the run {name}/{key} after step {len(own.metrics())}."
    others = sorted(path.parent.name for path in runs.glob("*/run.json"))
    if others:
        return directory, f"Starts afresh as {name}/{key}: settings, data or model differ from {', '.join(others[:3])}, which are kept."
    return directory, f"Starts the run {name}/{key}."


NODES: list[type[io.ComfyNode]] = [TrainingSettings, JointTrainer]
