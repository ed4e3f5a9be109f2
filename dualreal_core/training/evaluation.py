"""Losses at fixed noise and timesteps, so that evaluations of a run can be compared exactly, and probes for leaks.

Nothing of the run's random state is drawn and nothing of the pair is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from ..bases import Base
from ..dataset import PreparedItem
from ..method.attach import Attachment
from ..method.pair import ROLES, Role
from ..objective import WHOLE, Objective, SigmaRange
from ..precision import lowered
from .loop import loss_masks
from .scores import Evaluation, SideScores
from .settings import TrainSettings
from .timesteps import draw_timesteps
from .validation import Split, files_of

NUM_ROWS = 6
"""Samples with noise per side and evaluation, each at a timestep of its own."""
LEAST_NOISE = 0.5
"""Quantile of the timesteps training draws from which on the rows lie. Subject and motion are decided where there is much noise;
where there is little, the loss on data held out soon rises with the texture of the few files, while videos still improve."""
NUM_DRAWS = 4096
"""Timesteps drawn to find the quantiles of the training distribution."""
SEED = 20250502
"""Of noise and timesteps; the same in every run, so that runs with other seeds can be compared."""


@dataclass(frozen=True)
class FixedBatch:
    """Samples with their noise.

    latents, noise: (B, C, f, h, w); timestep: (B,); mask: (B, 1, f, h, w) or None; condition: (B, E) or None.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timestep: torch.Tensor
    texts: Sequence[object]
    mask: torch.Tensor | None
    condition: torch.Tensor | None


def fixed_timesteps(
    objective: Objective, role: Role, share_schedule: tuple[float, ...] = (), bias: float = 0.0, within: SigmaRange = WHOLE
) -> torch.Tensor:
    """`NUM_ROWS` timesteps at evenly spaced quantiles of the noisier half of those that a side draws in training."""
    drawn = draw_timesteps(objective, NUM_DRAWS, torch.Generator().manual_seed(SEED), role, share_schedule, bias, within).sort().values
    quantiles = [LEAST_NOISE + (1 - LEAST_NOISE) * (row + 0.5) / NUM_ROWS for row in range(NUM_ROWS)]
    return torch.stack([drawn[int(NUM_DRAWS * quantile)] for quantile in quantiles])


def fixed_batches(
    items: Sequence[PreparedItem], source: Role, timesteps: torch.Tensor, batch_size: int, background_weight: float
) -> list[FixedBatch]:
    """A row of the data of `source` for each timestep, in batches of one size; each file before any comes twice."""
    generator = torch.Generator().manual_seed(SEED)
    spread = [items for _, items in sorted(files_of(items).items())]
    crops = [file[crop] for crop in range(max(map(len, spread))) for file in spread if crop < len(file)]
    buckets: dict[object, list[int]] = {}
    for row in range(len(timesteps)):
        buckets.setdefault(crops[row % len(crops)].bucket, []).append(row)
    batches = []
    for rows in buckets.values():
        for begin in range(0, len(rows), batch_size):
            chosen = rows[begin : begin + batch_size]
            batch = [crops[row % len(crops)] for row in chosen]
            latents = torch.stack([item.latents for item in batch])
            has_condition = source == "motion" and all(item.conditions is not None for item in batch)
            batches.append(
                FixedBatch(
                    latents,
                    torch.randn(latents.shape, generator=generator),
                    timesteps[chosen],
                    [item.text for item in batch],
                    loss_masks(batch, background_weight, torch.device("cpu")) if source == "identity" else None,
                    torch.stack([item.conditions[0] for item in batch]) if has_condition else None,
                )
            )
    return batches


class Evaluator:
    """Evaluates the trained sides of an attached pair, always on the same rows."""

    def __init__(self, base: Base, attachment: Attachment, splits: Mapping[Role, Split], settings: TrainSettings) -> None:
        self.base, self.attachment, self.settings = base, attachment, settings
        self.sides = [role for role in ROLES if settings.trains(role) and attachment.pair.role_parameters(role)]
        self.splits = splits
        self._base_outputs: dict[int, list[torch.Tensor]] = {}

    @torch.no_grad()
    def evaluate(self, step: int) -> Evaluation:
        """The pair as it is now."""
        with _left_as_it_was(self.attachment):
            return Evaluation(step, {role: self._scores(role) for role in self.sides})

    def _scores(self, role: Role) -> SideScores:
        own, others, seen = self._batches[role]
        single, plain = [self._predict(batch, (role,)) for batch in own], self._base_predictions(own)
        changed, unchanged = [self._predict(batch, (role,)) for batch in others], self._base_predictions(others)
        change = _root_mean_square([a - b for a, b in zip(single, plain, strict=True)])
        change_of_others = _root_mean_square([a - b for a, b in zip(changed, unchanged, strict=True)])
        has_both = all(self.attachment.pair.role_parameters(role) for role in ROLES)
        trained = [self._predict(batch, (role,)) for batch in seen]
        return SideScores(
            loss=self._loss(own, [self._predict(batch, ROLES) for batch in own] if has_both else single),
            single_loss=self._loss(own, single),
            base_loss=self._loss(own, plain),
            train_loss_ratio=self._loss(seen, trained) / self._loss(seen, self._base_predictions(seen)) if seen else None,
            leakage=change_of_others / change if change else 0.0,
        )

    @cached_property
    def _batches(self) -> dict[Role, tuple[list[FixedBatch], list[FixedBatch], list[FixedBatch]]]:
        """For each side its own data, the other side's, and, where some is kept for validation, own data that is trained on.

        All are at the timesteps of the side: what it does to the other's data differs by the data alone.
        """
        settings, share_schedule = self.settings, self.attachment.pair.config.share_schedule
        batch_size = max(settings.identity_batch, settings.motion_batch)
        batches = {}
        for role in self.sides:
            timesteps = fixed_timesteps(self.base.objective, role, share_schedule, settings.timestep_bias, settings.sigma_range)
            other: Role = "motion" if role == "identity" else "identity"
            own = self.splits[role]
            batches[role] = tuple(
                fixed_batches(items, source, timesteps, batch_size, settings.background_weight) if items else []
                for source, items in (
                    (role, own.validation or own.trained),
                    (other, self.splits[other].validation or self.splits[other].trained),
                    (role, own.trained if own.validation else []),
                )
            )
        return batches

    def _base_predictions(self, batches: list[FixedBatch]) -> list[torch.Tensor]:
        """Made once for each list of batches."""
        if id(batches) not in self._base_outputs:
            self._base_outputs[id(batches)] = [self._predict(batch, ()) for batch in batches]
        return self._base_outputs[id(batches)]

    def _predict(self, batch: FixedBatch, roles: Sequence[Role]) -> torch.Tensor:
        """Prediction with these sides on: (B, C, f, h, w) float32 on the CPU."""
        device = next(self.base.transformer.parameters()).device
        self.attachment.strengths = {role: float(role in roles) for role in ROLES}
        self.attachment.condition = None if batch.condition is None else batch.condition.to(device)
        self.attachment.stage = self.base.objective.stage(batch.timestep)
        noisy = self.base.objective.add_noise(batch.latents, batch.noise, batch.timestep).to(device)
        with lowered(self.base, self.settings.precision == "bf16"):
            output = self.base.predict(noisy, batch.timestep.to(device), self.base.batch_texts(batch.texts))
        self.attachment.finish_call()
        return output.float().cpu()

    def _loss(self, batches: Sequence[FixedBatch], predictions: Sequence[torch.Tensor]) -> float:
        losses = [
            self.base.objective.loss_per_sample(prediction, batch.latents, batch.noise, batch.timestep, batch.mask)
            for batch, prediction in zip(batches, predictions, strict=True)
        ]
        return float(torch.cat(losses).mean())


@contextmanager
def _left_as_it_was(attachment: Attachment) -> Iterator[None]:
    """Inside, the attachment is as in training and records nothing; after, it is as it was."""
    names = ("condition", "stage", "strengths", "row_strengths", "record")
    kept = {name: getattr(attachment, name) for name in names}
    attachment.row_strengths = attachment.record = None
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(attachment, name, value)


def _root_mean_square(tensors: Sequence[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors) / sum(tensor.numel() for tensor in tensors))
