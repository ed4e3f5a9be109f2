"""Names that fields of files once had. Old pair files and run folders are read by this table, old TOML keys are told the new name."""

from __future__ import annotations

from collections.abc import Mapping

from ..method.pair import FREE, PER_SIDE, ROLES, per_side

RENAMED: dict[str, dict[str, str]] = {
    "pair": {"course": "share_schedule"},
    "train": {
        "course_focus": "timestep_bias",
        "resting_drop": "frozen_adapter_dropout",
        "identity_cross_ratio": "preservation_ratio",
        "held_out": "validation_split",
        "keeps_best": "save_best",
    },
    "training": {"method": "algorithm_version"},
    "crops": {"num_views": "num_crops", "view_margin": "crop_margin"},
    "step": {"cross_loss": "preservation_loss"},
    "side": {"alone": "single_loss", "base": "base_loss", "trained": "train_loss_ratio", "leak": "leakage"},
    "run": {"views": "crops"},
}
"""Today's name by the former one, for each part of a file."""
RECIPES = {"published": "paper"}
DROPPED = {"motion_cross_ratio": 0.0, "shows_photos_as_clips": False}
"""Settings that are gone, and the value at which they did nothing; at another one they stay, so that a comparison finds them."""
ADVICE: dict[str, dict[str, str]] = {
    "pair": {
        "floor": "it is now 'has_controller': false keeps to the share schedule, true is a free network, as floor 0 was",
        "learned_range": "it is now 'has_controller': false keeps to the share schedule, true is a free network, as learned_range 0.5 was",
    },
    "train": {"motion_cross_ratio": "it is gone, as it helped nowhere: leave it out"},
    "crops": {"shows_photos_as_clips": "it is gone, as panning clips of photos helped nowhere: leave it out"},
}
"""What became of former keys that were not simply renamed."""

Fields = Mapping[str, object]


def advice(table: str, key: str) -> str | None:
    """What became of a former TOML key; None where it never was one."""
    new_name = RENAMED.get(table, {}).get(key)
    return f"it is now {new_name!r}" if new_name else ADVICE.get(table, {}).get(key)


def pair_fields(config: Fields) -> dict[str, object]:
    """Fields of a `PairConfig`, whose sides once shared their sizes, and whose network once was bounded; at 0 there was none."""
    new = _renamed(config, "pair")
    if "floor" in new:
        free_part = round(FREE - new.pop("floor"), 12)
        new["learned_range"] = free_part if new.pop("has_controller", True) else 0
    if new.get("learned_range") in (0, FREE):
        new["has_controller"] = new.pop("learned_range") == FREE
    if not new.get("has_controller", True):
        new.pop("controller_dim", None)
    return new if any(f"{role}_{name}" in new for name in PER_SIDE for role in ROLES) else per_side(new)


def former_pair_settings(pair: Fields) -> list[dict[str, object]]:
    """What a recipe's settings of a pair were called when a network could be held close to the schedule, as it was by default: by them
    the nodes named folders of runs."""
    rest = {name: value for name, value in pair.items() if name != "has_controller"}
    if pair.get("has_controller", True):
        return [{**rest, "learned_range": FREE}]
    return [{**rest, "learned_range": learned_range, "controller_dim": 128} for learned_range in (0.01, 0.0)]


def training_fields(training: object) -> object:
    """The entry `training` of a header or a run; that of a combined pair has one such for each side."""
    if not isinstance(training, Mapping):
        return training
    new = _renamed(_renamed({name: training_fields(value) for name, value in training.items()}, "train"), "training")
    return {**new, "recipe": RECIPES.get(new["recipe"], new["recipe"])} if isinstance(new.get("recipe"), str) else new


def tensor_name(name: str) -> str:
    """Name of a tensor in a pair."""
    return name.replace(".condition.", ".condition_proj.")


def run_fields(asked_for: Fields) -> dict[str, object]:
    """What a run was asked for."""
    new = _renamed(asked_for, "run")
    changes = {"training": training_fields, "pair": pair_fields, "crops": lambda crops: _renamed(crops, "crops")}
    return {name: changes[name](value) if name in changes and isinstance(value, Mapping) else value for name, value in new.items()}


def record_fields(record: Fields) -> dict[str, object]:
    """A line of a run's metrics."""
    new = _renamed(record, "step")
    if "evaluation" in new:
        new["evaluation"] = {role: _renamed(side, "side") for role, side in new["evaluation"].items()}
    return new


def checkpoint_fields(saved: Fields) -> dict[str, object]:
    """The state of a run."""
    weights = {part: {tensor_name(name): tensor for name, tensor in (saved[part] or {}).items()} or None for part in ("pair", "best")}
    return {**saved, **weights, "evaluations": [record_fields(record) for record in saved["evaluations"]]}


def _renamed(fields: Fields, part: str) -> dict[str, object]:
    names = RENAMED[part]
    return {names.get(name, name): value for name, value in fields.items() if not (name in DROPPED and value == DROPPED[name])}
