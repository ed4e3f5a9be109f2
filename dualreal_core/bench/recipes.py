"""The recipes that the benchmark's methods start from, made of ours."""

from __future__ import annotations

from dataclasses import replace

from ..training.recipes import PAPER, Recipe, with_train
from ..training.settings import TrainSettings

STEPS = 800
"""Of joint training; each side alone gets its half."""
JOINT_SETTINGS = (
    "motion_ratio", "frozen_adapter_dropout", "preservation_ratio", "preservation_batch", "timestep_bias",
    "identity_learning_rate", "controller_learning_rate",
)  # fmt: skip
FIXED_WEIGHTS = {"has_controller": False, "share_schedule": ()}
"""Of a pair without a network, even between its sides."""
CONTROLLER_SETTINGS = ("has_controller", "share_schedule", "num_groups", "controller_dim")


def ours(recipe: Recipe) -> Recipe:
    """Ours as it is."""
    return recipe


def plain(recipe: Recipe) -> Recipe:
    """Without what belongs to the joint run, with an even motion ratio and as many photos in a batch as clips: a change there leaves
    the runs of other methods valid."""
    defaults = TrainSettings()
    pair = {name: value for name, value in recipe.pair.items() if name not in CONTROLLER_SETTINGS}
    reset = {name: getattr(defaults, name) for name in JOINT_SETTINGS}
    return with_train(replace(recipe, pair=pair), **reset, identity_batch=recipe.train.motion_batch)


def paper(recipe: Recipe) -> Recipe:
    """The paper's pair and recipe at our steps and batches and the method's rates: its own suit a base a thousand times larger.

    It sees the stills that all methods see: photos of the toy world are larger than a frame, and scaled down they would show a
    figure smaller than the one that is asked for.
    """
    names = ("steps", "seed", "learning_rate", "controller_learning_rate", "warmup_steps", "motion_batch")
    same_stills = replace(PAPER, num_crops=recipe.num_crops, crop_margin=recipe.crop_margin)
    return with_train(same_stills, **{name: getattr(recipe.train, name) for name in names}, identity_batch=recipe.train.motion_batch)
