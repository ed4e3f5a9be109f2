"""Settings of a training run, in one flat frozen dataclass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from ..method.pair import Role
    from ..objective import SigmaRange

OptimizerName = Literal["adamw", "adamw8bit", "prodigy"]
Precision = Literal["fp32", "bf16"]

LEAST_PRODIGY_RATE = 0.1
_RATES = ("learning_rate", "identity_learning_rate", "motion_learning_rate", "controller_learning_rate")
_SHARES = ("motion_ratio", "condition_drop", "frozen_adapter_dropout", "preservation_ratio", "background_weight")
_NOT_NEGATIVE = ("warmup_steps", "weight_decay", "timestep_bias", "evaluate_every", "validation_split", "patience")
_LIMITS: tuple[tuple[tuple[str, ...], Callable[..., bool], str], ...] = (
    (("steps", "identity_batch", "motion_batch", "accumulation", "expert_steps"), lambda value: value >= 1, "it must be at least 1"),
    (("preservation_batch",), lambda value: value is None or value >= 1, "it must be at least 1"),
    (_SHARES, lambda value: 0 <= value <= 1, "it must lie between 0 and 1"),
    (("sigma_min", "sigma_max"), lambda value: value is None or 0 <= value <= 1, "it must lie between 0 (clean) and 1 (noise)"),
    ((*_RATES, "eps", "clip_norm"), lambda value: value is None or value > 0, "it must be positive"),
    (
        ("timestep_bias", "weight_decay", "eps", *_RATES),
        lambda value: value is None or math.isfinite(value),
        "it must be a finite number",
    ),
    (("seed",), lambda value: -(2**63) <= value < 2**63, "it must have at most 18 digits"),
    (("optimizer",), get_args(OptimizerName).__contains__, f"it must be one of {', '.join(get_args(OptimizerName))}"),
    (("precision",), get_args(Precision).__contains__, f"it must be one of {', '.join(get_args(Precision))}"),
    (_NOT_NEGATIVE, lambda value: value >= 0, "it must not be negative"),
    (("beta1", "beta2"), lambda value: 0 <= value < 1, "it must be at least 0 and below 1"),
    (("validation_split",), lambda value: value <= 1 or float(value).is_integer(), "it must be a share below 1 or a whole number of files"),
)
"""Names of settings, what their values must suit, and what else is said."""
_NEUTRAL = {"sigma_min": (None, 0.0), "sigma_max": (None, 1.0), "expert_steps": (50,), "preservation_batch": (None,)}
"""Settings that came later, and values at which they change nothing."""


@dataclass(frozen=True)
class TrainSettings:
    """How both sides are trained. Defaults are the paper's; `recipes.py` holds ours."""

    steps: int = 1000
    motion_ratio: float = 0.5
    """Probability that a step trains the motion side."""
    identity_batch: int = 1
    motion_batch: int = 3
    accumulation: int = 1
    """Batches per optimizer step, all for one role; a step that also sees the other side's data takes as many of these."""
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    identity_learning_rate: float | None = None
    motion_learning_rate: float | None = None
    controller_learning_rate: float | None = None
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    warmup_steps: int = 200
    condition_drop: float = 0.0
    """Share of motion batches that see no reference embedding."""
    frozen_adapter_dropout: float = 0.0
    """Share of steps in which the frozen side is left out, so that each side also learns to stand alone."""
    preservation_ratio: float = 0.0
    """Prior preservation: share of the identity's steps in which it also sees clips and learns to keep the motion side's
    prediction on them."""
    preservation_batch: int | None = None
    """Clips in each such look, of those that are next in turn; None: `motion_batch`. One is enough, at a fraction of the time."""
    timestep_bias: float = 0.0
    """How far the timesteps of each side are biased to where the share schedule favours it: they are drawn in proportion to its
    share to this power. 0: as the base draws them."""
    background_weight: float = 0.1
    """Loss weight outside the subject mask, where a photo has one; inside it is 1."""
    gradient_checkpointing: bool = False
    precision: Precision = "fp32"
    """Of the activations; trained weights and optimizer state are always fp32."""
    evaluate_every: int = 0
    """Steps between evaluations at fixed noise, with one more after the last step; 0: none. They do not change what is learned."""
    validation_split: float = 0.0
    """Photos and clips kept out of training to be evaluated on: a share below 1 of each side's files, or a number of them."""
    save_best: bool = False
    """The pair of the evaluation with the lowest loss of each side alone is the result, instead of that of the last step."""
    patience: int = 0
    """Evaluations in which neither side improves after which training stops; 0: it never stops early."""
    seed: int = 0
    sigma_min: float | None = None
    """Noise level, 0 (clean) to 1, from which on timesteps are drawn: sigma of a flow model, sqrt(1 - alpha_bar) for v-prediction.
    None: that of the model, which is 0 but for one of two experts."""
    sigma_max: float | None = None
    """Noise level below which they are drawn. None: that of the model, which is 1 but for one of two experts."""
    expert_steps: int = 50
    """Steps after which a run of two experts goes over to the other one, whose weights then take the place of the first one's."""

    def __post_init__(self) -> None:
        for names, suits, sentence in _LIMITS:
            for name in names:
                if not suits(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)!r}; {sentence}.")
        for name in _RATES if self.optimizer == "prodigy" else ():
            value = getattr(self, name)
            if value is not None and value < LEAST_PRODIGY_RATE:
                raise ValueError(f"{name} is {value}; prodigy finds its own step, of which this is a factor: set it to 1.")
        for name in ("validation_split", "save_best", "patience"):
            if getattr(self, name) and not self.evaluate_every:
                raise ValueError(f"{name} is {getattr(self, name)}, but evaluate_every is 0; set how many steps lie between evaluations.")

        if self.sigma_range[0] >= self.sigma_range[1]:
            raise ValueError(
                f"sigma_min is {self.sigma_range[0]:g} and sigma_max {self.sigma_range[1]:g}; sigma_min must lie below sigma_max."
            )

    @property
    def sigma_range(self) -> SigmaRange:
        """Noise levels that are trained at, as far as they are set: see `noise_range.fit_range` for what a model sets."""
        return 0.0 if self.sigma_min is None else self.sigma_min, 1.0 if self.sigma_max is None else self.sigma_max

    def recorded(self) -> dict[str, object]:
        """The settings as files and the names of runs keep them: those that came later only where they change something, so that
        what was written before them means the same."""
        neutral = dict(_NEUTRAL)
        if not self.preservation_ratio or (self.preservation_batch or 0) >= self.motion_batch:
            neutral["preservation_batch"] = (self.preservation_batch,)
        return {name: value for name, value in asdict(self).items() if name not in neutral or value not in neutral[name]}

    def expert_at(self, step: int, num_experts: int) -> int:
        """Which expert is trained after so many steps."""
        return step // self.expert_steps % num_experts

    def trains(self, role: Role) -> bool:
        """Whether any step trains this side."""
        return self.motion_ratio > 0 if role == "motion" else self.motion_ratio < 1

    def rate(self, part: str) -> float:
        """Peak learning rate of 'identity', 'motion' or 'controller'."""
        own = getattr(self, f"{part}_learning_rate")
        return self.learning_rate if own is None else own

    def schedule(self, step: int) -> float:
        """Factor on the learning rate: linear warm-up from 0, then cosine to 0 at `steps`."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)))
