"""All methods of the benchmark by name, and what was chosen for each in tuning."""

from __future__ import annotations

import math

from ..errors import InputError
from ..toyworld.config import TRANSFORMER_CONFIG
from ..training.recipes import FREE_CONTROLLER
from .gate_methods import GATE_METHODS
from .methods import COUNTS, STRENGTHS, Method
from .pair_methods import PAIR_METHODS
from .paper_methods import PAPER_METHODS
from .peer_methods import PEER_METHODS
from .recipes import FIXED_WEIGHTS, ours, paper
from .two_loras import TWO_LORA_METHODS

_APART = ("identity", "motion")
"""Trainers of each side alone."""
_EVEN = {"identity_share": 0.5}
_SHARES = {"identity_share": (0.42, 0.46, 0.54, 0.58)}
_LORA_RATES = {"settings": {"learning_rate": 4e-3}, "alternatives": {"learning_rate": (7e-4, 2e-3, 8e-3)}}
_FREE = {"settings": {"controller_learning_rate": 2e-3}, "alternatives": {"controller_learning_rate": (1e-4,)}}
"""A free controller competes at the sides' rate, and at that which the paper's needs here."""
_PAPER_RATES = {"learning_rate": 1e-2, "controller_learning_rate": 1e-4}
_PAPER = {
    "trainers": ("joint",),
    "recipe": paper,
    "settings": _PAPER_RATES,
    "alternatives": {"learning_rate": (2e-3, 4e-3, 2e-2), "controller_learning_rate": (1e-3, 1e-2)},
}
"""The sides need a higher rate than the paper's here; a controller that follows them runs to one side, where nothing brings it back."""


def _joint(name: str, title: str, what: str, **changes: object) -> Method:
    """Trained jointly by our recipe, with changes."""
    return Method(name, title, what, **{"trainers": ("joint",), "recipe": ours, **changes})


def _free_groups(name: str, num_groups: int, groups: str, what: str) -> Method:
    pair = {**FREE_CONTROLLER, "num_groups": num_groups}
    return _joint(name, f"joint, {groups}", f"ours with a free controller {what}", pair=pair, **_FREE)


METHODS = {
    method.name: method
    for method in (
        Method("base", "base, prompt only", "the base as it is, given the prompt"),
        Method(
            "identity-only",
            "identity side alone",
            "photos only, half of the steps: what retention of the identity is held against",
            ("identity",),
        ),
        Method(
            "motion-only",
            "motion side alone",
            "clips only, half of the steps: what retention of the motion is held against",
            ("motion",),
        ),
        Method(
            "full-finetune",
            "full fine-tune",
            "all weights of the DiT on photos and clips, no adapter",
            ("full-finetune",),
            settings={"learning_rate": 1e-3},
            alternatives={"learning_rate": (1e-4, 3e-4, 3e-3)},
            is_baseline=True,
        ),
        Method(
            "mixed-lora",
            "one LoRA",
            "one LoRA of twice the rank on photos and clips",
            ("mixed-lora",),
            **_LORA_RATES,
            is_baseline=True,
        ),
        Method(
            "sum",
            "separate, summed",
            "both sides trained alone and added up",
            _APART,
            settings=_EVEN,
            alternatives=_SHARES,
        ),
        Method(
            "sum-scheduled",
            "separate, on a schedule",
            "the same two sides, weighed by the plan 'movement first' that the nodes offer for any two LoRAs",
            _APART,
            plan="movement first",
        ),
        Method(
            "motiondirector",
            "MotionDirector style",
            "a spatial LoRA learns the clips' frames, a motion LoRA the clips with the spatial one on and the appearance-debiased loss; "
            "the spatial one is dropped and the identity side, trained alone, added",
            ("identity", "motiondirector"),
            **{**_LORA_RATES, "settings": {**_LORA_RATES["settings"], **_EVEN}},
            is_baseline=True,
        ),
        Method(
            "identity-first",
            "identity, then motion",
            "the motion side learns with the trained identity side frozen in the pass",
            ("second-motion",),
        ),
        Method(
            "motion-first",
            "motion, then identity",
            "the identity side learns with the trained motion side frozen in the pass",
            ("second-identity",),
        ),
        _joint(
            "unmasked",
            "joint, no masking",
            "both sides learn from every batch, so without timestep bias and preservation",
            trainers=("unmasked",),
            settings={"learning_rate": 2e-3},
            alternatives={"learning_rate": (7e-4, 4e-3)},
        ),
        _joint(
            "fixed",
            "joint, fixed weights",
            "ours at even weights, without the share schedule and so without a timestep bias",
            pair=FIXED_WEIGHTS,
            settings=_EVEN,
            alternatives=_SHARES,
        ),
        _joint(
            "no-preservation",
            "joint, no preservation",
            "ours, the identity never sees the clips",
            train={"preservation_ratio": 0.0},
        ),
        _joint(
            "no-timestep-bias",
            "joint, no timestep bias",
            "ours, both sides draw their timesteps alike",
            train={"timestep_bias": 0.0},
        ),
        _joint(
            "no-schedule",
            "joint, no share schedule",
            "ours with a free controller that starts from even weights, so without a timestep bias",
            pair={**FREE_CONTROLLER, "share_schedule": ()},
            **_FREE,
        ),
        _joint(
            "bounded-network",
            "joint, bounded controller",
            "ours with a controller that may leave the share schedule by a hundredth, as its pairs once had",
            pair={**FREE_CONTROLLER, "learned_range": 0.01},
        ),
        _free_groups("one-group", 1, "1 group", "that weighs all blocks alike"),
        _free_groups("two-groups", 2, "2 groups", "of two groups, between one group and one per block"),
        _free_groups(
            "per-block",
            TRANSFORMER_CONFIG["num_layers"],
            "1 group per block",
            "of five groups, one per block: the paper's seven groups need more blocks than this base has",
        ),
        Method(
            "paper",
            "DualReal, paper's recipe",
            "the paper's adapters and recipe at our steps and batches, sampled as in the paper: the pair acts on the negative prompt too",
            **_PAPER,
            adapts_negative=True,
            is_baseline=True,
        ),
        Method(
            "paper-guided",
            "DualReal, paper's recipe, our guidance",
            "the same pair, sampled as ours: it acts on the prompt alone",
            **_PAPER,
        ),
        Method(
            "paper-separate",
            "paper's recipe, separate",
            "the paper's adapters, each side trained alone for half of the steps, added up; sampled as ours",
            _APART,
            paper,
            settings={**_PAPER_RATES, **_EVEN},
        ),
        Method(
            "paper-fixed",
            "paper's recipe, fixed weights",
            "the paper's adapters and joint training without the controller, at even weights; sampled as ours",
            ("joint",),
            paper,
            pair=FIXED_WEIGHTS,
            settings={**_PAPER_RATES, **_EVEN},
        ),
        Method(
            "paper-one-group",
            "paper's recipe, 1 group",
            "the paper's pair with a controller that weighs all blocks alike; sampled as ours",
            ("joint",),
            paper,
            pair={"num_groups": 1},
            settings=_PAPER_RATES,
        ),
        *PAPER_METHODS,
        *PEER_METHODS,
        *GATE_METHODS,
        *PAIR_METHODS,
        _joint(
            "ours",
            "DualReal, ours",
            "the recipe of this project at the toy world's scale, with the prompt gate that a training ends with",
            trainers=("gated",),
        ),
    )
}
BASE = "base"
REFERENCES = (BASE, "identity-only", "motion-only")
"""Methods that retention and leakage are computed from; always run."""
QUICK_METHODS = (*REFERENCES, "sum", "sum-scheduled", "ours")
TWO_LORA_ROWS = (*REFERENCES, "sum", "sum-scheduled", *TWO_LORA_METHODS)
"""Of the two-LoRA benchmark."""
QUICK_TWO_LORA_ROWS = (*REFERENCES, "sum", "sum-scheduled", "curves")


def find_method(name: str) -> Method:
    """A method by its name, or with settings of its own, as in 'full-finetune[learning_rate=0.0001]'.

    Raises:
        InputError: there is no such method, or it has no such setting.
    """
    plain_name, bracket, text = name.partition("[")
    known = {**METHODS, **TWO_LORA_METHODS}
    if plain_name not in known:
        raise InputError(f"There is no method {name!r}: choose one of {', '.join(known)}.")
    method = known[plain_name]
    if not bracket:
        return method
    try:
        settings = {key: float(value) for key, value in (part.split("=") for part in text.removesuffix("]").split(","))}
    except ValueError as error:
        raise InputError(f"The method {name!r} cannot be read: write settings as in {plain_name}[learning_rate=0.001].") from error
    wrong = [key for key, value in settings.items() if not _is_in_range(key, value)]
    if wrong:
        raise InputError(
            f"The method {name!r} sets {wrong[0]} out of range: a share lies between 0 and 1, identity_early from 0 up, a rate or size "
            "above 0, and a count is whole."
        )
    has_strengths = method.trainers and method.joiner is None
    allowed = [*method.settings, *method.alternatives, *(STRENGTHS if has_strengths else ())]
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        known = ", ".join(allowed) or "none"
        raise InputError(f"The method {plain_name} has no setting {unknown[0]!r} (it has: {known}): leave it out.")
    return method.at(settings)


def _is_in_range(setting: str, value: float) -> bool:
    if setting in COUNTS and value != int(value):
        return False
    return (value > 0 or (value == 0 and setting == "identity_early")) and value < (1 if setting == "identity_share" else math.inf)
