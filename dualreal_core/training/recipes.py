"""Recipes: consistent defaults for pair, crops and training; and how a TOML file changes them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from ..errors import InputError
from .settings import TrainSettings

if TYPE_CHECKING:
    from ..dataset import CropSettings

WARMUP_PART = 5
MOST_BLOCKS = 10_000
"""Stands for the base's number of blocks where a recipe is checked before the base is known."""
BASE_FIELDS = (
    "family", "dim", "num_blocks", "time_dim", "identity_condition_dim", "motion_condition_dim", "experts", "boundary", "text_dim",
    "gate_features",
)  # fmt: skip
"""Of a pair's configuration, what the base decides, or a gate that is fitted afterwards."""
NOT_SET = (*BASE_FIELDS, "learned_range")
"""And what files of settings cannot set either, as only former pairs have it."""

OWN_FIELDS = ("conditions_motion", "prompt_gate")
"""Fields of a recipe that files of settings set beside those of the pair."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a pair is trained, besides base and data.

    Attributes:
        pair: `PairConfig` fields other than those that describe the base, or such for both sides (see `per_side`).
        conditions_motion: the motion side reads reference embeddings, where the base has an image encoder.
        prompt_gate: a pair of two sides gets a prompt gate once it is trained.
        num_crops, crop_margin: how many crops of each photo, and how far they may lie apart; see `CropSettings`.
        train: training settings.
    """

    name: str
    train: TrainSettings
    pair: Mapping[str, object] = field(default_factory=dict)
    conditions_motion: bool = True
    prompt_gate: bool = True
    num_crops: int = 1
    crop_margin: float = 0.0

    @property
    def crops(self) -> CropSettings:
        """How photos are cropped.

        Raises:
            ValueError: there is no room for that many crops.
        """
        from ..dataset import CropSettings  # the recipes themselves are known without torch, which takes seconds to import

        return CropSettings(self.num_crops, self.crop_margin)


PAPER = Recipe(
    name="paper",
    train=TrainSettings(),
    pair={"identity_kind": "bottleneck-skip", "motion_kind": "bottleneck-skip", "scale": 0.2},
    prompt_gate=False,
)
"""The paper's recipe: adapters with the inner skip, photos as one-frame videos, both sides always on."""

SHARE_SCHEDULE = (0.4, 0.4, 0.7, 0.8, 0.9, 0.9)
"""Identity shares over denoising: a movement is settled in noise, looks late, where the motion side has nothing left to add."""

DUALREAL = Recipe(
    name="dualreal",
    train=TrainSettings(frozen_adapter_dropout=1.0, preservation_ratio=0.25, preservation_batch=1, timestep_bias=2.0, evaluate_every=200),
    pair={
        "identity_kind": "lora",
        "motion_kind": "lora",
        "rank": 32,
        "alpha": 32.0,
        "scale": 2.0,
        "has_controller": False,
        "share_schedule": SHARE_SCHEDULE,
    },
    num_crops=4,
    crop_margin=0.125,
)
"""Ours: each side learns at the weights it will be used at, mostly where in denoising these are large, and with the other one
out of the pass, because on its own data it only learns to undo it. They meet where the identity also sees the clips: there it
learns to leave the motion's prediction as it is, which photos alone cannot teach it. Their weights are the share schedule, movement
first and then looks, and no network: one that is free lets each side ask for more of itself, as photos are told from clips by their
shape, and one that is held close to the schedule changes nothing."""

FREE_CONTROLLER = {"has_controller": True, "controller_dim": 128}
"""What gives ours a free network that starts from the share schedule, of a width that is small beside any base."""

RECIPES = {recipe.name: recipe for recipe in (DUALREAL, PAPER)}


def with_train(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with some training settings changed."""
    return replace(recipe, train=replace(recipe.train, **changes))


def fitted_warmup(warmup_steps: int, steps: int) -> int:
    """Of so many steps, how many the rate rises over where `warmup_steps` were asked for: a fifth at most."""
    return min(warmup_steps, steps // WARMUP_PART)


def fit_warmup(recipe: Recipe) -> tuple[Recipe, str | None]:
    """The recipe with a warm-up of a fifth of its steps at most, as else its rate hardly arrives; and a sentence, if that is less."""
    settings = recipe.train
    most = fitted_warmup(settings.warmup_steps, settings.steps)
    if most == settings.warmup_steps:
        return recipe, None
    note = f"The rate rises over {most} instead of {settings.warmup_steps} steps: warm-up takes a fifth of {settings.steps} steps at most."
    return with_train(recipe, warmup_steps=most), note


def fitted_expert_steps(expert_steps: int, steps: int) -> int:
    """Of so many steps, how many go to one expert before the other one's turn, where `expert_steps` were asked for: half at most."""
    return min(expert_steps, max(1, steps // 2))


def fit_expert_steps(recipe: Recipe, num_experts: int) -> tuple[Recipe, str | None]:
    """The recipe with turns of half its steps at most, so that each of several experts has one; and a sentence, if they are shorter.

    Where there is one DiT they mean nothing, and are as by default.
    """
    settings = recipe.train
    if num_experts < 2:
        return with_train(recipe, expert_steps=TrainSettings.expert_steps), None
    most = fitted_expert_steps(settings.expert_steps, settings.steps)
    if most == settings.expert_steps:
        return recipe, None
    note = f"Experts take turns of {most} instead of {settings.expert_steps} steps: a turn is half of {settings.steps} steps at most."
    return with_train(recipe, expert_steps=most), note


def as_begun(recipe: Recipe, begun: Mapping[str, object]) -> tuple[Recipe, str | None]:
    """The recipe for a run that may have been begun when networks could be held close to the schedule: it goes on with its own, which
    no recipe asks for any more. And a sentence, where it does.

    Args:
        begun: fields of the pair that it was begun with, see `RunDirectory.begun_pair`.
    """
    if recipe.pair.get("has_controller", True) or "learned_range" not in begun:
        return recipe, None
    network = {"has_controller": True, **{name: begun.get(name) for name in ("learned_range", "controller_dim")}}
    note = f"Goes on with the network that this run was begun with, which moves shares by {begun['learned_range']} at most."
    return replace(recipe, pair={**recipe.pair, **network}), note


def preserving_as_begun(recipe: Recipe, begun: Mapping[str, object]) -> Recipe:
    """The recipe for a run that may have been begun when the identity always saw whole batches of clips: it goes on to.

    Args:
        begun: training settings that it was begun with, see `RunDirectory.begun_fields`.
    """
    return with_train(recipe, preservation_batch=None) if begun and "preservation_batch" not in begun else recipe


def read_recipe(path: Path, recipe: Recipe) -> Recipe:
    """The recipe with the changes of a TOML file: tables `[train]`, `[pair]` and `[crops]`.

    A rank brings its alpha along, and prodigy its learning rate, a factor of 1. What is set for both sides, as `rank`, takes the
    place of what the recipe sets for one, as `motion_rank`; in the file, what is set for one side counts there.

    Raises:
        InputError: no such file, no TOML, an unknown table or key, or a value of the wrong type or out of range.
    """
    from ..method.pair import PER_SIDE, ROLES, PairConfig, per_side
    from ..storage.renames import advice

    # only the command line reads TOML, and Python before 3.11 needs a package for it
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path of the configuration.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no valid TOML ({error}): correct that line.") from error
    allowed = {
        "train": [item.name for item in fields(TrainSettings)],
        "pair": [*PER_SIDE, *(item.name for item in fields(PairConfig) if item.name not in NOT_SET), *OWN_FIELDS],
        "crops": ["num_crops", "crop_margin"],
    }
    types = {**get_type_hints(Recipe), **get_type_hints(PairConfig), **get_type_hints(TrainSettings)}
    types |= {name: types[f"identity_{name}"] for name in PER_SIDE}
    for table, values in tables.items():
        if table not in allowed or not isinstance(values, dict):
            known = ", ".join(f"[{name}]" for name in allowed)
            became = advice("run", table)
            raise InputError(f"{path} has {table!r} at its top level: {became or f'only the tables {known} are known'}.")
        for key in values:
            if key not in allowed[table]:
                became = advice(table, key)
                raise InputError(f"{path} sets {key!r} in [{table}]: {became or 'it is unknown; known are ' + ', '.join(allowed[table])}.")
            if not _is_of_type(values[key], types[key]):
                takes = getattr(types[key], "__name__", str(types[key]))
                raise InputError(f"{path} sets {key!r} in [{table}] to {values[key]!r}: it takes {takes}.")
    pair = dict(tables.get("pair", {}))
    own = {name: pair.pop(name, getattr(recipe, name)) for name in OWN_FIELDS}
    if "alpha" not in pair:
        ranks = {prefix: pair[f"{prefix}rank"] for prefix in ("", *(f"{role}_" for role in ROLES)) if f"{prefix}rank" in pair}
        pair = {**{f"{prefix}alpha": float(rank) for prefix, rank in ranks.items()}, **pair}
    replaced = {f"{role}_{name}" for name in PER_SIDE if name in pair for role in ROLES}
    kept = {name: value for name, value in recipe.pair.items() if name not in replaced}
    pair |= {name: tuple(pair[name]) for name in ("target_layers", "share_schedule") if name in pair}
    trained = dict(tables.get("train", {}))
    if trained.get("optimizer") == "prodigy":
        trained.setdefault("learning_rate", 1.0)
    try:
        train = replace(recipe.train, **trained)
        changed = replace(recipe, train=train, pair={**kept, **pair}, **own, **tables.get("crops", {}))
        _ = changed.crops
        PairConfig(family="any", dim=1, num_blocks=MOST_BLOCKS, time_dim=1, **per_side(changed.pair))
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
    return changed


def _is_of_type(value: object, kind: object) -> bool:
    """Whether a TOML value suits a field: whole numbers are also numbers, true and false are not."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_is_of_type(one, get_args(kind)[0]) for one in value)
    kinds = get_args(kind) or (kind,)
    return isinstance(value, (int, float) if float in kinds else kinds)
