"""What a row of the benchmark changes in our recipe."""

from __future__ import annotations

from dataclasses import replace

from ..training.recipes import PUBLISHED, Recipe, with_train
from ..training.settings import TrainSettings

JOINT_SETTINGS = (
    "motion_ratio", "resting_drop", "identity_cross_ratio", "motion_cross_ratio", "course_focus",
    "identity_learning_rate", "controller_learning_rate",
)  # fmt: skip
CONTROLLER_SETTINGS = ("floor", "course", "num_groups", "controller_dim")


def as_it_is(recipe: Recipe) -> Recipe:
    """Ours itself."""
    return recipe


def plain(recipe: Recipe) -> Recipe:
    """Without what belongs to the joint run, and with an even motion ratio: a change there leaves the runs of other rows valid."""
    defaults = TrainSettings()
    pair = {name: value for name, value in recipe.pair.items() if name not in CONTROLLER_SETTINGS}
    stripped = replace(recipe, pair=pair, shows_photos_as_clips=False)
    return with_train(stripped, **{name: getattr(defaults, name) for name in JOINT_SETTINGS})


def without_controller(recipe: Recipe) -> Recipe:
    """Nor with a course."""
    return replace(recipe, pair={**recipe.pair, "has_controller": False, "course": ()})


def on_course_alone(recipe: Recipe) -> Recipe:
    """Without the controller; the pair keeps to the course."""
    return replace(recipe, pair={**recipe.pair, "has_controller": False, "floor": 0.0})


def without_crossing(recipe: Recipe) -> Recipe:
    """Neither side sees the other's data."""
    return with_train(recipe, identity_cross_ratio=0.0, motion_cross_ratio=0.0)


def with_pans(recipe: Recipe) -> Recipe:
    """Half of the identity's batches are then clips; the rate makes up for the stills they replace."""
    return with_train(replace(recipe, shows_photos_as_clips=True), identity_learning_rate=1.5 * recipe.train.rate("identity"))


def without_focus(recipe: Recipe) -> Recipe:
    """Timesteps as the base draws them."""
    return with_train(recipe, course_focus=0.0)


def without_course(recipe: Recipe) -> Recipe:
    """A free controller that starts from even weights."""
    return replace(recipe, pair={**recipe.pair, "course": (), "floor": 0.0})


def with_free_groups(num_groups: int, recipe: Recipe) -> Recipe:
    """The controller decides alone, as in the paper, from wherever it starts."""
    return replace(recipe, pair={**recipe.pair, "num_groups": num_groups, "floor": 0.0})


def published(recipe: Recipe) -> Recipe:
    """The paper's pair and recipe at our steps and batches and the row's rates: its own suit a base a thousand times larger.

    It sees the stills that all rows see: photos of the toy world are larger than a frame, and scaled down they would show a
    figure smaller than the one that is asked for.
    """
    names = ("steps", "seed", "learning_rate", "controller_learning_rate", "warmup_steps", "identity_batch", "motion_batch")
    same_stills = replace(PUBLISHED, num_views=recipe.num_views, view_margin=recipe.view_margin)
    return with_train(same_stills, **{name: getattr(recipe.train, name) for name in names})


def published_without_controller(recipe: Recipe) -> Recipe:
    """The paper's pair at fixed weights."""
    return without_controller(published(recipe))


def published_with_groups(num_groups: int, recipe: Recipe) -> Recipe:
    """The paper's pair with a controller of so many groups."""
    own = published(recipe)
    return replace(own, pair={**own.pair, "num_groups": num_groups})
