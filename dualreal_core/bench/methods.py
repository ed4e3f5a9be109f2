"""A method of the benchmark: what it trains, how that is put together, and the settings it competes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from ..training.recipes import Recipe, with_train
from ..training.settings import TrainSettings
from .candidate import Candidate
from .recipes import plain

if TYPE_CHECKING:
    from ..bases import Base
    from ..toyworld.trial import Trial
    from .runs import Run
    from .trainers import Trained

Settings = Mapping[str, float]
STRENGTHS = ("identity_strength", "motion_strength")
"""Settings of every method with two sides in one pair: factors on their weights, 1 unless a name sets them."""
BLEND_SETTINGS = ("identity_share", "identity_early", *STRENGTHS)
"""Settings of how sides are weighed: `identity_share` fixes the weights, `identity_early` is the dial of curves."""
COUNTS = ("steps", "identity_batch", "bottleneck_dim", "rank", "num_groups")
"""Settings that are whole numbers."""
_TRAIN_FIELDS = frozenset(item.name for item in fields(TrainSettings))


@dataclass(frozen=True)
class Method:
    """A way to train and fuse.

    Attributes:
        what: one sentence for the report.
        trainers: names in `TRAINERS`; two sides that were trained apart are added up.
        recipe: what it makes of our recipe.
        pair, train: settings of its own in that recipe.
        plan: name of the plan in `PLANS` that weighs the sides instead of the pair's own weights.
        curves: name in `FORMS` of the blend curves that do, at the setting `identity_early`.
        joiner: name in `JOINERS` of what makes one candidate of what was trained.
        adapts_negative: see `SamplingSettings`.
        settings: those chosen in tuning, names of `TrainSettings`, of the pair (see `per_side`), of `BLEND_SETTINGS`, or of the
            joiner's own.
        alternatives: other values of these settings, and of others that a name may set, to be compared on the tuning trials.
        is_baseline: counts in the mean that ours is held against.
    """

    name: str
    title: str
    what: str
    trainers: tuple[str, ...] = ()
    recipe: Callable[[Recipe], Recipe] = plain
    pair: Mapping[str, object] = field(default_factory=dict)
    train: Mapping[str, float] = field(default_factory=dict)
    plan: str | None = None
    curves: str | None = None
    joiner: str | None = None
    adapts_negative: bool = False
    settings: Settings = field(default_factory=dict)
    alternatives: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    is_baseline: bool = False

    def runs(self, trial: Trial, recipe: Recipe) -> tuple[Run, ...]:
        """Its training runs; `recipe` is ours, with the steps of the whole method."""
        from ..method.pair import ROLES  # the table of methods is read without what trains them, which takes seconds to import
        from .runs import Run
        from .trainers import TRAINERS

        common = with_train(recipe, seed=trial.seed)
        is_joined = self.joiner is not None
        tuned = {
            name: value
            for name, value in self.settings.items()
            if name in _TRAIN_FIELDS or not (is_joined or name in BLEND_SETTINGS)  # the joiner's own are none of training
        }
        tuned |= {name: int(tuned[name]) for name in COUNTS if name in tuned}
        in_training = {name: value for name, value in tuned.items() if name in _TRAIN_FIELDS}
        of_pair = {name: value for name, value in tuned.items() if name not in _TRAIN_FIELDS}
        if "rank" in of_pair:
            of_pair["alpha"] = float(of_pair["rank"])
        own = with_train(self.recipe(common), **in_training)
        own = with_train(replace(own, pair={**own.pair, **self.pair, **of_pair}), **self.train)

        def run(trainer: str) -> Run:
            # a side alone by the plain recipe is the run of a reference: it is shared, whatever rate the rest of this method has
            is_reference = trainer in ROLES and self.recipe is plain
            needs = tuple(run(need) for need in TRAINERS[trainer].needs)
            seen = {role: getattr(trial, role) for role in TRAINERS[trainer].sees}
            return Run(trainer, plain(common) if is_reference else own, needs=needs, **seen)

        return tuple(run(trainer) for trainer in self.trainers)

    def assemble(self, trained: Sequence[Trained], base: Base | None = None, trial: Trial | None = None) -> Candidate:
        """The candidate, given what its runs trained; what joins two sides by itself works on the base, and knows the trial's words."""
        from ..method.blend import PLANS, FixedBlend
        from ..method.combine import combine
        from ..method.pair import ROLES
        from .joining.forms import curves_of

        if self.joiner is not None:
            from .joining.table import JOINERS

            return JOINERS[self.joiner](base, trial, trained, self.settings)
        if not trained:
            return Candidate()
        if isinstance(trained[0], dict):
            return Candidate(weights=trained[0])
        pair, blend = combine(*trained) if len(trained) > 1 else trained[0], None
        if self.plan is not None:
            blend = PLANS[self.plan].blend(pair.config)
        elif self.curves is not None:
            blend = curves_of(self.curves, self.settings["identity_early"]).blend(pair.config)
        elif "identity_share" in self.settings:
            identity = pair.config.scale * self.settings["identity_share"]
            blend = FixedBlend(identity, pair.config.scale - identity)
        strengths = {role: self.settings.get(f"{role}_strength", 1.0) for role in ROLES}
        return Candidate(pair, blend=blend, adapts_negative=self.adapts_negative, strengths=strengths)

    def variants(self) -> list[Method]:
        """The method with each other value of its settings."""
        return [self.at({name: value}) for name, values in self.alternatives.items() for value in values]

    def at(self, settings: Settings) -> Method:
        """The method with these settings, and a name and title that tell them."""
        shown = shown_settings(settings)
        changed = {**self.settings, **settings}
        return replace(self, name=f"{self.name}[{shown}]", title=f"{self.title}, {shown}", settings=changed)


def shown_settings(settings: Settings) -> str:
    """'learning_rate=0.002,identity_share=0.5'; empty where there are none."""
    return ",".join(f"{name}={value:g}" for name, value in settings.items())
