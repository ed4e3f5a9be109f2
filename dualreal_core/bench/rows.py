"""The benchmark's competitors, one row each: what is trained, how it is put together, and the setting it competes with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from ..errors import InputError
from ..method.blend import PLANS, Blend, FixedBlend
from ..method.combine import combine
from ..method.pair import AdapterPair
from ..toyworld.model import TRANSFORMER_CONFIG
from ..training.recipes import Recipe, with_train
from . import changes
from .baselines import Trained
from .pieces import Piece

Settings = Mapping[str, float]
NUM_BLOCKS = TRANSFORMER_CONFIG["num_layers"]


@dataclass(frozen=True)
class Contestant:
    """What is sampled: the base with a pair, with other weights, or as it is.

    Attributes:
        weights: of the DiT, instead of the base's own.
        blend: instead of the pair's own.
        adapts_negative: see `SamplingSettings`.
    """

    pair: AdapterPair | None = None
    weights: dict[str, torch.Tensor] | None = None
    blend: Blend | None = None
    adapts_negative: bool = False


@dataclass(frozen=True)
class Subject:
    """What one cell is about: a figure, a motion and a seed."""

    identity: str
    motion: str
    seed: int


@dataclass(frozen=True)
class Row:
    """A competitor.

    Attributes:
        what: one sentence for the report.
        pieces: its training runs, given our recipe, and that recipe with this row's training settings.
        assemble: the contestant, given what was trained and the settings.
        settings: the knob it competes with; names of `TrainSettings`, or `identity_share`.
        candidates: other values of the knob, to be compared on the tuning pairs.
        is_published_style: counts in the mean that ours is held against.
    """

    name: str
    title: str
    what: str
    pieces: Callable[[Subject, Recipe, Recipe], tuple[Piece, ...]]
    assemble: Callable[[Sequence[Trained], Settings], Contestant]
    settings: Settings = field(default_factory=dict)
    candidates: tuple[Settings, ...] = ()
    is_published_style: bool = False

    def plan(self, subject: Subject, recipe: Recipe) -> tuple[Piece, ...]:
        """Its training runs; `recipe` is ours, with the steps of the whole competitor."""
        ours = with_train(recipe, seed=subject.seed)
        own = {name: value for name, value in self.settings.items() if name != "identity_share"}
        return self.pieces(subject, ours, with_train(ours, **own))

    def variants(self) -> list[Row]:
        """The row with each other value of its knob."""
        return [self.at(settings) for settings in self.candidates]

    def at(self, settings: Settings) -> Row:
        """The row with these settings, and a name and title that tell them."""
        shown = shown_settings(settings)
        changed = {**self.settings, **settings}
        return replace(self, name=f"{self.name}[{shown}]", title=f"{self.title}, {shown}", settings=changed)


def shown_settings(settings: Settings) -> str:
    """'learning_rate=0.002,identity_share=0.5'; empty where there are none."""
    return ",".join(f"{name}={value:g}" for name, value in settings.items())


def _no_pieces(subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    return ()


def _identity(subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    return (Piece("identity", changes.plain(ours), identity=subject.identity),)


def _motion(subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    return (Piece("motion", changes.plain(ours), motion=subject.motion),)


def _both_alone(subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    return _identity(subject, ours, own) + _motion(subject, ours, own)


def _published_alone(subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    recipe = changes.paper(own)
    return (Piece("identity", recipe, identity=subject.identity), Piece("motion", recipe, motion=subject.motion))


def _whole(trainer: str, change: Callable[[Recipe], Recipe], subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    return (Piece(trainer, change(own), subject.identity, subject.motion),)


def _motion_path(subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    return (*_identity(subject, ours, own), Piece("motiondirector", changes.plain(own), motion=subject.motion))


def _one_after_the_other(first: str, second: str, subject: Subject, ours: Recipe, own: Recipe) -> tuple[Piece, ...]:
    before = {"identity": _identity, "motion": _motion}[first](subject, ours, own)
    return (Piece(f"second-{second}", changes.plain(own), subject.identity, subject.motion, before),)


def _base(trained: Sequence[Trained], settings: Settings) -> Contestant:
    return Contestant()


def _pair(trained: Sequence[Trained], settings: Settings) -> Contestant:
    return Contestant(pair=trained[0])


def _pair_on_all_rows(trained: Sequence[Trained], settings: Settings) -> Contestant:
    return Contestant(pair=trained[0], adapts_negative=True)


def _weights(trained: Sequence[Trained], settings: Settings) -> Contestant:
    return Contestant(weights=trained[0])


def _sum(trained: Sequence[Trained], settings: Settings) -> Contestant:
    return _shared(combine(*trained), settings)


def _sum_on_course(trained: Sequence[Trained], settings: Settings) -> Contestant:
    pair = combine(*trained)
    return Contestant(pair=pair, blend=PLANS["movement first"].blend(pair.config))


def _fixed(trained: Sequence[Trained], settings: Settings) -> Contestant:
    return _shared(trained[0], settings)


def _shared(pair: AdapterPair, settings: Settings) -> Contestant:
    identity = pair.config.scale * settings["identity_share"]
    return Contestant(pair=pair, blend=FixedBlend(identity, pair.config.scale - identity))


_SHARES = tuple({"identity_share": share} for share in (0.42, 0.46, 0.54, 0.58))
_EVEN = {"identity_share": 0.5}
_FREE_RATE = {"controller_learning_rate": 2e-3}
_SLOW = ({"controller_learning_rate": 1e-4},)
"""A free controller competes at the sides' rate, and at that which the paper's needs here."""


def _rates(*rates: float) -> tuple[Settings, ...]:
    return tuple({"learning_rate": rate} for rate in rates)


_PUBLISHED_RATES = {"learning_rate": 1e-2, "controller_learning_rate": 1e-4}
_PUBLISHED_CANDIDATES = (*_rates(2e-3, 4e-3, 2e-2), {"controller_learning_rate": 1e-3}, {"controller_learning_rate": 1e-2})
"""The sides need a higher rate than the paper's here; a controller that follows them runs to one side, where nothing brings it back."""

_TABLE = (
    Row("base", "base, prompt only", "the base as it is, given the prompt", _no_pieces, _base),
    Row(
        "identity-only",
        "identity side alone",
        "photos only, half of the steps: what retention of the identity is held against",
        _identity,
        _pair,
    ),
    Row("motion-only", "motion side alone", "clips only, half of the steps: what retention of the motion is held against", _motion, _pair),
    Row(
        "full-finetune",
        "full fine-tune",
        "all weights of the DiT on photos and clips, no adapter",
        partial(_whole, "full-finetune", changes.plain),
        _weights,
        settings={"learning_rate": 1e-3},
        candidates=_rates(1e-4, 3e-4, 3e-3),
        is_published_style=True,
    ),
    Row(
        "mixed-lora",
        "one LoRA",
        "one LoRA of twice the rank on photos and clips",
        partial(_whole, "mixed-lora", changes.plain),
        _pair,
        settings={"learning_rate": 4e-3},
        candidates=_rates(7e-4, 2e-3, 8e-3),
        is_published_style=True,
    ),
    Row(
        "sum",
        "separate, summed",
        "both sides trained alone and added up",
        _both_alone,
        _sum,
        settings=_EVEN,
        candidates=_SHARES,
    ),
    Row(
        "sum-course",
        "separate, on a plan",
        "the same two sides, weighed along the plan 'movement first' that the nodes offer for any two LoRAs",
        _both_alone,
        _sum_on_course,
    ),
    Row(
        "motiondirector",
        "MotionDirector style",
        "a spatial LoRA learns the clips' frames, a motion LoRA the clips with the spatial one on and the appearance-debiased loss; "
        "the spatial one is dropped and the identity side, trained alone, added",
        _motion_path,
        _sum,
        settings={"learning_rate": 4e-3, **_EVEN},
        candidates=_rates(7e-4, 2e-3, 8e-3),
        is_published_style=True,
    ),
    Row(
        "identity-first",
        "identity, then motion",
        "the motion side learns with the trained identity side frozen in the pass",
        partial(_one_after_the_other, "identity", "motion"),
        _pair,
    ),
    Row(
        "motion-first",
        "motion, then identity",
        "the identity side learns with the trained motion side frozen in the pass",
        partial(_one_after_the_other, "motion", "identity"),
        _pair,
    ),
    Row(
        "unmasked",
        "joint, no masking",
        "both sides and the controller learn from every batch, so without focus and crossing",
        partial(_whole, "unmasked", changes.as_it_is),
        _pair,
        settings={"learning_rate": 2e-3},
        candidates=_rates(7e-4, 4e-3),
    ),
    Row(
        "fixed",
        "joint, fixed weights",
        "ours without controller and course, so without a focus",
        partial(_whole, "joint", changes.without_controller),
        _fixed,
        settings=_EVEN,
        candidates=_SHARES,
    ),
    Row(
        "no-crossing",
        "joint, no crossing",
        "ours, the identity never sees the clips",
        partial(_whole, "joint", changes.without_crossing),
        _pair,
    ),
    Row(
        "no-focus",
        "joint, no focus",
        "ours, both sides draw their timesteps alike",
        partial(_whole, "joint", changes.without_focus),
        _pair,
    ),
    Row(
        "no-course",
        "joint, no course",
        "ours with a free controller that starts from even weights, so without a focus",
        partial(_whole, "joint", changes.without_course),
        _pair,
        settings=_FREE_RATE,
        candidates=_SLOW,
    ),
    Row(
        "no-controller",
        "joint, no controller",
        "ours without the controller: the pair keeps to the course",
        partial(_whole, "joint", changes.on_course_alone),
        _pair,
    ),
    Row(
        "one-group",
        "joint, 1 group",
        "ours with a free controller that weighs all blocks alike",
        partial(_whole, "joint", partial(changes.with_free_groups, 1)),
        _pair,
        settings=_FREE_RATE,
        candidates=_SLOW,
    ),
    Row(
        "two-groups",
        "joint, 2 groups",
        "ours with a free controller of two groups, between one group and one per block",
        partial(_whole, "joint", partial(changes.with_free_groups, 2)),
        _pair,
        settings=_FREE_RATE,
        candidates=_SLOW,
    ),
    Row(
        "per-block",
        "joint, 1 group per block",
        "ours with a free controller of five groups, one per block: the paper's seven groups need more blocks than this base has",
        partial(_whole, "joint", partial(changes.with_free_groups, NUM_BLOCKS)),
        _pair,
        settings=_FREE_RATE,
        candidates=_SLOW,
    ),
    Row(
        "paper",
        "DualReal, published",
        "the paper's adapters and recipe at our steps and batches, sampled as published: the pair acts on the negative prompt too",
        partial(_whole, "joint", changes.paper),
        _pair_on_all_rows,
        settings=_PUBLISHED_RATES,
        candidates=_PUBLISHED_CANDIDATES,
        is_published_style=True,
    ),
    Row(
        "published-guided",
        "DualReal, published, our guidance",
        "the same pair, sampled as ours: it acts on the prompt alone",
        partial(_whole, "joint", changes.paper),
        _pair,
        settings=_PUBLISHED_RATES,
        candidates=_PUBLISHED_CANDIDATES,
    ),
    Row(
        "published-separate",
        "published, separate",
        "the paper's adapters, each side trained alone for half of the steps, added up; sampled as ours",
        _published_alone,
        _sum,
        settings={**_PUBLISHED_RATES, **_EVEN},
    ),
    Row(
        "published-fixed",
        "published, fixed weights",
        "the paper's adapters and joint training without the controller, at even weights; sampled as ours",
        partial(_whole, "joint", changes.published_without_controller),
        _fixed,
        settings={**_PUBLISHED_RATES, **_EVEN},
    ),
    Row(
        "published-one-group",
        "published, 1 group",
        "the paper's pair with a controller that weighs all blocks alike; sampled as ours",
        partial(_whole, "joint", partial(changes.published_with_groups, 1)),
        _pair,
        settings=_PUBLISHED_RATES,
    ),
    Row("ours", "DualReal, ours", "the recipe of this project at the toy world's scale", partial(_whole, "joint", changes.as_it_is), _pair),
)
ROWS: dict[str, Row] = {row.name: row for row in _TABLE}
REFERENCES = ("base", "identity-only", "motion-only")
"""Rows that retention and leakage are computed from; always run."""
QUICK_ROWS = (*REFERENCES, "sum", "sum-course", "ours")


def find_row(name: str) -> Row:
    """A row by its name, or with settings of its own, as in 'full-finetune[learning_rate=0.0001]'.

    Raises:
        InputError: there is no such row, or it has no such setting.
    """
    plain, bracket, text = name.partition("[")
    if plain not in ROWS:
        raise InputError(f"There is no row {name!r}: choose one of {', '.join(ROWS)}.")
    row = ROWS[plain]
    if not bracket:
        return row
    try:
        settings = {key: float(value) for key, value in (part.split("=") for part in text.removesuffix("]").split(","))}
    except ValueError as error:
        raise InputError(f"The row {name!r} cannot be read: write settings as in {plain}[learning_rate=0.001].") from error
    wrong = [key for key, value in settings.items() if not 0 < value < (1 if key == "identity_share" else math.inf)]
    if wrong:
        raise InputError(f"The row {name!r} sets {wrong[0]} out of range: a share lies between 0 and 1, a rate above 0.")
    unknown = [key for key in settings if key not in row.settings]
    if unknown:
        known = ", ".join(row.settings) or "none"
        raise InputError(f"The row {plain} has no setting {unknown[0]!r} (it has: {known}): leave it out.")
    return row.at(settings)
