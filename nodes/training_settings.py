"""Training Settings, what everybody sets, and Training Options, the rest."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..dualreal_core.errors import InputError
from ..dualreal_core.training.recipes import DUALREAL, FREE_CONTROLLER
from .types import CATEGORY, OptionsType, SettingsType, TrainerOptions, TrainerSettings

KINDS = ("lora", "bottleneck")
SHARE_SCHEDULES = {"motion fades": DUALREAL.pair["share_schedule"], "even": ()}
PRECISIONS = {"as the model": "fp32", "bf16": "bf16"}
TRAIN = DUALREAL.train
AS_THE_MODEL = -1.0
"""Of a noise level: the model decides."""


class TrainingSettings(io.ComfyNode):
    """What everybody sets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealTrainingSettings",
            display_name="Training Settings",
            category=CATEGORY,
            description="How long and how large the Joint Trainer trains. Everything else is in Training Options.",
            search_aliases=["dualreal", "lora rank", "learning rate", "steps"],
            inputs=[
                io.Int.Input("steps", default=1000, min=1, max=100000, tooltip="Optimizer steps of both sides together."),
                io.Combo.Input("adapter", options=list(KINDS), default="lora",
                    tooltip="'lora' on attention and feed-forward layers learns motions fastest; 'bottleneck' is the paper's adapter."),
                io.Int.Input("rank", default=32, min=1, max=1024, tooltip="Rank of the LoRA, or hidden width of the bottleneck."),
                io.Float.Input("learning_rate", default=1e-3, min=1e-6, max=0.1, step=1e-5,
                    tooltip="Peak rate of the optimizer: warm-up, then cosine to 0."),
                io.Boolean.Input("gradient_checkpointing", default=True,
                    tooltip="Runs each block again for the backward pass: slower, in much less memory."),
                io.Int.Input("preview_every", default=50, min=0, max=100000,
                    tooltip="Steps between pictures on the trainer: loss curves, and a sample if it is wired for one. 0 shows none."),
                io.Int.Input("seed", default=0, min=0, max=2**32 - 1, control_after_generate=False,
                    tooltip="Decides the adapters' first weights and every random draw: the same seed trains the same pair."),
                OptionsType.Input("options", optional=True, tooltip="From Training Options; without it their defaults hold."),
            ],
            outputs=[SettingsType.Output(display_name="settings", tooltip="For the Joint Trainer.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, steps, adapter, rank, learning_rate, gradient_checkpointing, preview_every, seed, options: TrainerOptions | None = None
    ) -> io.NodeOutput:
        options = options or TrainingOptions.execute().result[0]
        train = replace(
            TRAIN, steps=steps, learning_rate=learning_rate, gradient_checkpointing=gradient_checkpointing, seed=seed, **options.train
        )
        kinds = {"identity_kind": adapter, "motion_kind": adapter, "rank": rank, "alpha": float(rank), "bottleneck_dim": rank}
        recipe = replace(DUALREAL, name="comfyui", train=train, pair={**DUALREAL.pair, **kinds, **options.pair})
        return io.NodeOutput(TrainerSettings(recipe, options.save_every, preview_every))


class TrainingOptions(io.ComfyNode):
    """What few have to set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="DualRealTrainingOptions",
            display_name="Training Options",
            category=CATEGORY,
            description="Settings of the Joint Trainer that seldom need a change: batches, warm-up, method, evaluation.",
            search_aliases=["dualreal", "advanced training", "batch size", "validation split", "prior preservation", "warmup"],
            inputs=[
                io.Int.Input("identity_batch", optional=True, default=1, min=1, max=256, tooltip="Samples per identity step."),
                io.Int.Input("motion_batch", optional=True, default=1, min=1, max=256, tooltip="Samples of each batch of clips."),
                io.Int.Input("accumulation", optional=True, default=1, min=1, max=256,
                    tooltip="Batches per optimizer step, all for one side: larger effective batches in the same memory."),
                io.Float.Input("motion_ratio", optional=True, default=0.5, **share,
                    tooltip="Share of the steps that train the motion; the others train the identity."),
                io.Float.Input("identity_learning_rate", optional=True, default=0.0, min=0.0, max=0.1, step=1e-5,
                    tooltip="Peak rate of the identity, where it should differ. 0: learning_rate."),
                io.Int.Input("warmup_steps", optional=True, default=50, min=0, max=100000,
                    tooltip="Steps over which the rate rises, a fifth of all steps at most."),
                io.Combo.Input("precision", optional=True, options=list(PRECISIONS), default="as the model",
                    tooltip="Precision of the activations. Trained weights and optimizer state are always fp32."),
                io.Float.Input("frozen_adapter_dropout", optional=True, default=TRAIN.frozen_adapter_dropout, **share,
                    tooltip="Share of the steps without the frozen side. Where it is in, the trained side learns to undo it. 0 is the "
                    "paper's."),
                io.Float.Input("preservation_ratio", optional=True, default=TRAIN.preservation_ratio, **share,
                    tooltip="Prior preservation: share of the identity's steps that also see clips, to keep the motion there as it is. "
                    "0 is the paper's."),
                io.Float.Input("timestep_bias", optional=True, default=TRAIN.timestep_bias, min=0.0, max=8.0, step=0.1,
                    tooltip="How far the timesteps of each side are biased to where the share schedule favours it. 0 is the paper's."),
                io.Combo.Input("share_schedule", optional=True, options=list(SHARE_SCHEDULES), default="motion fades",
                    tooltip="How the pair is weighed over denoising: the motion leads early and the identity late, or even as in the "
                    "paper."),
                io.Boolean.Input("has_controller", optional=True, default=DUALREAL.pair["has_controller"],
                    tooltip="On: a network learns the weights, as in the paper, and the share schedule is only where it starts. Off: the "
                    "weights are the share schedule."),
                io.Int.Input("num_groups", optional=True, default=7, min=1, max=64,
                    tooltip="Groups of consecutive blocks that a network or curves weigh apart; reduced to the model's number of blocks."),
                io.Int.Input("save_every", optional=True, default=100, min=1, max=100000,
                    tooltip="Steps between checkpoints. An interrupt saves one as well."),
                io.Int.Input("evaluate_every", optional=True, default=TRAIN.evaluate_every, min=0, max=100000,
                    tooltip="Steps between evaluations at fixed noise, for the report on what limits the result. 0 makes none."),
                io.Float.Input("validation_split", optional=True, default=0.0, min=0.0, max=0.9, step=0.01,
                    tooltip="Share of photos and of clips to evaluate on instead of training; 3 of each always remain to train on."),
                io.Boolean.Input("save_best", optional=True, default=False,
                    tooltip="Gives the pair of the evaluation with the lowest loss instead of the last one."),
                io.Int.Input("patience", optional=True, default=0, min=0, max=1000,
                    tooltip="Stops after so many evaluations in which neither side improved. 0 does all steps."),
                io.Int.Input("motion_rank", optional=True, default=0, min=0, max=1024,
                    tooltip="Rank (or hidden width) of the motion, where it should differ from the identity's. 0: rank of Training "
                    "Settings."),
                io.Float.Input("sigma_min", optional=True, default=AS_THE_MODEL, min=AS_THE_MODEL, max=1.0, step=0.005,
                    tooltip="Noise level, 0 (clean) to 1, from which on it trains. -1: as the model. That is 0, but for a Wan 2.2 expert "
                    "where its own range begins."),
                io.Float.Input("sigma_max", optional=True, default=AS_THE_MODEL, min=AS_THE_MODEL, max=1.0, step=0.005,
                    tooltip="Noise level below which it trains. -1: as the model. That is 1, but for a Wan 2.2 low-noise expert where its "
                    "own range ends."),
                io.Int.Input("expert_steps", optional=True, default=TRAIN.expert_steps, min=1, max=100000,
                    tooltip="With low_noise_model on the trainer: steps after which the other expert's turn comes, half of all at most. "
                    "Each change moves a whole model."),
            ],
            outputs=[OptionsType.Output(display_name="options", tooltip="For Training Settings.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, **changes: object) -> io.NodeOutput:
        values = {given.id: given.default for given in cls.define_schema().inputs} | changes
        if not values["evaluate_every"] and (values["validation_split"] or values["save_best"] or values["patience"]):
            raise InputError(
                "validation_split, save_best and patience rest on evaluations, but evaluate_every is 0: raise it, or reset them."
            )
        save_every, motion_rank = values.pop("save_every"), values.pop("motion_rank")
        pair = {
            "share_schedule": SHARE_SCHEDULES[values.pop("share_schedule")],
            "num_groups": values.pop("num_groups"),
            **(FREE_CONTROLLER if values.pop("has_controller") else {}),
        }
        if motion_rank:
            pair |= {"motion_rank": motion_rank, "motion_alpha": float(motion_rank), "motion_bottleneck_dim": motion_rank}
        for name in ("sigma_min", "sigma_max"):
            values[name] = None if values[name] < 0 else values[name]
        lowest, highest = values["sigma_min"] or 0.0, 1.0 if values["sigma_max"] is None else values["sigma_max"]
        if lowest >= highest:
            raise InputError(f"sigma_min is {lowest:g} and sigma_max {highest:g}: set sigma_min below sigma_max, or -1 for the model's.")
        values["precision"] = PRECISIONS[values["precision"]]
        values["identity_learning_rate"] = values["identity_learning_rate"] or None
        return io.NodeOutput(TrainerOptions(values, pair, save_every))


NODES: list[type[io.ComfyNode]] = [TrainingSettings, TrainingOptions]
