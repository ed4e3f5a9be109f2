"""Which noise a side is trained at: what is set, else that at which its expert runs, else all."""

from __future__ import annotations

import torch
from torch import nn

from ..bases.two_experts import TwoExpertBase
from ..errors import InputError
from ..families.base_record import Expert, expert_of
from ..families.expert_names import EXPERTS
from ..objective import Objective, SigmaRange
from .recipes import Recipe, with_train
from .settings import TrainSettings


def fit_range(recipe: Recipe, objective: Objective, transformer: nn.Module, file: str | None) -> tuple[Recipe, str | None]:
    """The recipe with the noise levels of the model where it sets none, and a sentence where these are an expert's.

    Args:
        file: name of the file or folder that the DiT comes from.

    Raises:
        InputError: no noise level that the model knows is left.
    """
    expert, note = expert_of(transformer, file), None
    if expert is not None:
        recipe, note = _within(recipe, expert)
    settings = recipe.train
    try:
        objective.sample_within(1, torch.Generator(), settings.sigma_range)
    except ValueError as error:
        raise InputError(str(error)) from error
    return recipe, note


def expert_ranges(settings: TrainSettings, base: TwoExpertBase) -> list[SigmaRange]:
    """The noise levels that each expert of a base is trained at: its own, as far as those that are set hold them.

    Raises:
        InputError: they hold none of one expert.
    """
    (lowest, highest), ranges = settings.sigma_range, []
    for name, (own_lowest, own_highest) in zip(EXPERTS, base.sigma_ranges, strict=True):
        within = max(lowest, own_lowest), min(highest, own_highest)
        if within[0] >= within[1]:
            raise InputError(
                f"sigma_min {lowest:g} and sigma_max {highest:g} leave the {name} expert nothing to be trained at, as it runs at noise "
                f"levels (sigma) {own_lowest:g} to {own_highest:g}: leave both to the model, or train the other expert alone."
            )
        ranges.append(within)
    return ranges


def _within(recipe: Recipe, expert: Expert) -> tuple[Recipe, str | None]:
    """The recipe with the range of an expert where it sets none, and a sentence on it."""
    settings, (lowest, highest) = recipe.train, expert.sigma_range
    set_by_hand = [name for name in ("sigma_min", "sigma_max") if getattr(settings, name) is not None]
    if len(set_by_hand) == 2:
        return recipe, None
    try:
        fitted = with_train(
            recipe,
            sigma_min=lowest if settings.sigma_min is None else settings.sigma_min,
            sigma_max=highest if settings.sigma_max is None else settings.sigma_max,
        )
    except ValueError as error:
        raise InputError(
            f"{error} The model is the {expert.name} expert, which runs at noise levels (sigma) {lowest:g} to {highest:g}: set both, or "
            f"leave {set_by_hand[0]} to the model."
        ) from error
    lowest, highest = fitted.train.sigma_range
    return fitted, (
        f"Trains at noise levels (sigma) {lowest:g} to {highest:g}, as the model is the {expert.name} expert by its name; sigma_min and "
        "sigma_max set others."
    )
