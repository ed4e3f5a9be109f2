"""What a row of the benchmark changes in our recipe."""

from __future__ import annotations

from dataclasses import replace

from ..training.recipes import PAPER, Recipe, with_train
from ..training.settings import TrainSettings

JOINT_SETTINGS = (
    "motion_ratio", "frozen_adapter_dropout", "preservation_ratio", "timestep_bias",
    "identity_learning_rate", "controller_learning_rate",
)  # fmt: skip
CONTROLLER_SETTINGS = ("learned_range", "share_schedule", "num_groups", "controller_dim")


def as_it_is(recipe: Recipe) -> Recipe:
    """Ours itself."""
    return recipe


def plain(recipe: Recipe) -> Recipe:
    """Without what belongs to the joint run, and with an even motion ratio: a change there leaves the runs of other rows valid."""
    defaults = TrainSettings()
    pair = {name: value for name, value in recipe.pair.items() if name not in CONTROLLER_SETTINGS}
    return with_train(replace(recipe, pair=pair), **{name: getattr(defaults, name) for name in JOINT_SETTINGS})


def without_controller(recipe: Recipe) -> Recipe:
    """Nor with a course."""
    return replace(recipe, pair={**recipe.pair, "learned_range": 0.0, "share_schedule": ()})


def on_course_alone(recipe: Recipe) -> Recipe:
    """Without the controller; the pair keeps to the course."""
    return replace(recipe, pair={**recipe.pair, "learned_range": 0.0})


def without_crossing(recipe: Recipe) -> Recipe:
    """Neither side sees the other's data."""
    return with_train(recipe, preservation_ratio=0.0)


def without_focus(recipe: Recipe) -> Recipe:
    """Timesteps as the base draws them."""
    return with_train(recipe, timestep_bias=0.0)


def without_course(recipe: Recipe) -> Recipe:
    """A free controller that starts from even weights."""
    return replace(recipe, pair={**recipe.pair, "share_schedule": (), "learned_range": 0.5})


def with_free_groups(num_groups: int, recipe: Recipe) -> Recipe:
    """The controller decides alone, as in the paper, from wherever it starts."""
    return replace(recipe, pair={**recipe.pair, "num_groups": num_groups, "learned_range": 0.5})


def paper(recipe: Recipe) -> Recipe:
    """The paper's pair and recipe at our steps and batches and the row's rates: its own suit a base a thousand times larger.

    It sees the stills that all rows see: photos of the toy world are larger than a frame, and scaled down they would show a
    figure smaller than the one that is asked for.
    """
    names = ("steps", "seed", "learning_rate", "controller_learning_rate", "warmup_steps", "identity_batch", "motion_batch")
    same_stills = replace(PAPER, num_crops=recipe.num_crops, crop_margin=recipe.crop_margin)
    return with_train(same_stills, **{name: getattr(recipe.train, name) for name in names})


def published_without_controller(recipe: Recipe) -> Recipe:
    """The paper's pair at fixed weights."""
    return without_controller(paper(recipe))


def published_with_groups(num_groups: int, recipe: Recipe) -> Recipe:
    """The paper's pair with a controller of so many groups."""
    own = paper(recipe)
    return replace(own, pair={**own.pair, "num_groups": num_groups})
