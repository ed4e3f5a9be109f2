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
from ..bases.two_experts import at_work, current_expert
from ..dataset import PreparedItem
from ..method.attach import Attachment
from ..method.experts_attachment import ExpertsAttachment
from ..method.pair import ROLES, Role
from ..objective import WHOLE, Objective, SigmaRange
from ..precision import lowered
from .experts import experts_in_training
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

_Wanted = tuple[int, tuple[Role, ...]]
"""A list of batches, by its id, and the sides that are on."""


@dataclass(frozen=True)
class FixedBatch:
    """Samples with their noise, for one of the experts.

    latents, noise: (B, C, f, h, w); timestep: (B,); mask: (B, 1, f, h, w) or None; condition: (B, E) or None.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timestep: torch.Tensor
    texts: Sequence[object]
    mask: torch.Tensor | None
    condition: torch.Tensor | None
    expert: int = 0


def fixed_timesteps(
    objective: Objective, role: Role, share_schedule: tuple[float, ...] = (), bias: float = 0.0, within: SigmaRange = WHOLE
) -> torch.Tensor:
    """`NUM_ROWS` timesteps at evenly spaced quantiles of the noisier half of those that a side draws in training."""
    drawn = draw_timesteps(objective, NUM_DRAWS, torch.Generator().manual_seed(SEED), role, share_schedule, bias, within).sort().values
    quantiles = [LEAST_NOISE + (1 - LEAST_NOISE) * (row + 0.5) / NUM_ROWS for row in range(NUM_ROWS)]
    return torch.stack([drawn[int(NUM_DRAWS * quantile)] for quantile in quantiles])


def fixed_batches(
    items: Sequence[PreparedItem], source: Role, timesteps: torch.Tensor, batch_size: int, background_weight: float, expert: int = 0
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
                    expert,
                )
            )
    return batches


class Evaluator:
    """Evaluates the trained sides of an attached pair, always on the same rows."""

    def __init__(
        self, base: Base, attachment: Attachment | ExpertsAttachment, splits: Mapping[Role, Split], settings: TrainSettings
    ) -> None:
        self.base, self.attachment, self.settings = base, attachment, settings
        self.experts = experts_in_training(base, attachment, settings)
        self.sides = [role for role in ROLES if settings.trains(role) and attachment.pair.role_parameters(role)]
        self.splits = splits
        self._base_outputs: dict[_Wanted, list[torch.Tensor]] = {}

    @torch.no_grad()
    def evaluate(self, step: int) -> Evaluation:
        """The pair as it is now."""
        with _left_as_it_was(self.attachment):
            outputs = self._predictions()
            return Evaluation(step, {role: self._scores(role, outputs) for role in self.sides})

    def _scores(self, role: Role, outputs: Mapping[_Wanted, list[torch.Tensor]]) -> SideScores:
        own, others, seen = self._batches[role]
        single, plain = outputs[id(own), (role,)], outputs[id(own), ()]
        changed, unchanged = outputs[id(others), (role,)], outputs[id(others), ()]
        change = _root_mean_square([a - b for a, b in zip(single, plain, strict=True)])
        change_of_others = _root_mean_square([a - b for a, b in zip(changed, unchanged, strict=True)])
        trained = self._loss(seen, outputs[id(seen), (role,)]) / self._loss(seen, outputs[id(seen), ()]) if seen else None
        return SideScores(
            loss=self._loss(own, outputs[id(own), ROLES] if self._has_both else single),
            single_loss=self._loss(own, single),
            base_loss=self._loss(own, plain),
            train_loss_ratio=trained,
            leakage=change_of_others / change if change else 0.0,
        )

    @property
    def _has_both(self) -> bool:
        return all(self.attachment.pair.role_parameters(role) for role in ROLES)

    def _predictions(self) -> dict[_Wanted, list[torch.Tensor]]:
        """Of each list of batches with each choice of sides on; those of the base are made once. Each expert comes to work once."""
        lists: dict[_Wanted, list[FixedBatch]] = {}
        for role, batches in self._batches.items():
            for one in batches:
                lists |= {(id(one), sides): one for sides in ((role,), ()) if (id(one), sides) not in self._base_outputs}
            lists |= {(id(batches[0]), ROLES): batches[0]} if self._has_both else {}
        outputs = {wanted: [torch.empty(0)] * len(batches) for wanted, batches in lists.items()}
        for expert in sorted(self.experts, key=lambda expert: expert.index != current_expert(self.base)):
            for (of, sides), batches in lists.items():
                for place, batch in enumerate(batches):
                    if batch.expert == expert.index:
                        outputs[of, sides][place] = self._predict(batch, sides)
        self._base_outputs |= {wanted: made for wanted, made in outputs.items() if not wanted[1]}
        return outputs | self._base_outputs

    @cached_property
    def _batches(self) -> dict[Role, tuple[list[FixedBatch], list[FixedBatch], list[FixedBatch]]]:
        """For each side its own data, the other side's, and, where some is kept for validation, own data that is trained on.

        All are at the timesteps of the side: what it does to the other's data differs by the data alone.
        """
        settings, share_schedule = self.settings, self.attachment.pair.config.share_schedule
        batch_size = max(settings.identity_batch, settings.motion_batch)
        batches = {}
        for role in self.sides:
            timesteps = [
                fixed_timesteps(self.base.objective, role, share_schedule, settings.timestep_bias, expert.within) for expert in self.experts
            ]
            other: Role = "motion" if role == "identity" else "identity"
            own = self.splits[role]
            batches[role] = tuple(
                [
                    batch
                    for expert in (self.experts if items else ())
                    for batch in fixed_batches(
                        items, source, timesteps[expert.index], batch_size, settings.background_weight, expert.index
                    )
                ]
                for source, items in (
                    (role, own.validation or own.trained),
                    (other, self.splits[other].validation or self.splits[other].trained),
                    (role, own.trained if own.validation else []),
                )
            )
        return batches

    def _predict(self, batch: FixedBatch, roles: Sequence[Role]) -> torch.Tensor:
        """Prediction with these sides on: (B, C, f, h, w) float32 on the CPU."""
        base, attachment = at_work(self.base, batch.expert), self.experts[batch.expert].attachment
        device = next(base.transformer.parameters()).device
        attachment.strengths = {role: float(role in roles) for role in ROLES}
        attachment.condition = None if batch.condition is None else batch.condition.to(device)
        attachment.move_to(base.objective.stage(batch.timestep), base.objective.noise_level(batch.timestep))
        noisy = base.objective.add_noise(batch.latents, batch.noise, batch.timestep).to(device)
        with lowered(base, self.settings.precision == "bf16"):
            output = base.predict(noisy, batch.timestep.to(device), base.batch_texts(batch.texts))
        attachment.finish_call()
        return output.float().cpu()

    def _loss(self, batches: Sequence[FixedBatch], predictions: Sequence[torch.Tensor]) -> float:
        losses = [
            self.base.objective.loss_per_sample(prediction, batch.latents, batch.noise, batch.timestep, batch.mask)
            for batch, prediction in zip(batches, predictions, strict=True)
        ]
        return float(torch.cat(losses).mean())


@contextmanager
def _left_as_it_was(attachment: Attachment | ExpertsAttachment) -> Iterator[None]:
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
