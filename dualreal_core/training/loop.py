"""Dual-aware Adaptation (paper, section 3.2): each step trains one side, the other stays in the pass as a frozen prior.

Beyond the paper: prior preservation, by which the identity also learns to keep the motion's prediction on the clips as it is,
and timesteps that are biased to where the share schedule favours the side in training (`timesteps`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from ..bases import Base
from ..bases.two_experts import at_work
from ..dataset import PreparedItem
from ..errors import InputError
from ..method.attach import Attachment
from ..method.experts_attachment import ExpertsAttachment
from ..method.pair import ROLES, Role
from ..precision import check_trainable, lowered
from .checkpointing import checkpointed, safe_saving
from .experts import CONTROLLER, ExpertInTraining, experts_in_training, parts_of
from .settings import TrainSettings
from .state import RunState
from .timesteps import draw_timesteps

ALGORITHM_VERSION = 2
"""Another number wherever the same settings begin to train another pair, beyond rounding: runs of one are not continued, or taken
for done, by another. 1: preservation took the place of a side's own step. 2: preservation adds to it."""


@dataclass(frozen=True)
class StepResult:
    """One optimizer step. `step` counts from 1; `gradient_norm` is before clipping.

    `loss` is the base's own objective on the trained side's data; `preservation_loss`, in an identity step that also saw
    clips, the mean squared change of the motion side's prediction on them.
    """

    step: int
    role: Role
    loss: float
    preservation_loss: float | None
    gradient_norm: float
    learning_rate: float


class DivergedError(InputError):
    """The loss or a gradient is no number any more; the weights are still those of the last good step."""


def train(
    base: Base,
    attachment: Attachment | ExpertsAttachment,
    items: Mapping[Role, Sequence[PreparedItem]],
    settings: TrainSettings,
    state: RunState,
) -> Iterator[StepResult]:
    """Trains until `settings.steps`, yielding after every optimizer step; the caller may stop between any two.

    Of two experts, each step belongs to one, by its number alone; the parameters of the other one rest as those of the frozen side do.

    The frozen side's parameters do not require gradients during a step, so their gradients are never computed and
    nothing of the optimizer touches them. The pair's gradient flags are left on at the end. A step left by an
    exception is undone, unless the optimizers were at work: then `state.is_torn` stays set. A prompt gate is not at work: sides are
    trained as they act where they are named.

    Raises:
        DivergedError: a loss or gradient is not finite; nothing was changed by that step.
        InputError: the base computes in float16.
    """
    check_trainable(base.compute_dtype)
    experts = experts_in_training(base, attachment, settings)
    attachment.start_over()
    follows_prompt, attachment.follows_prompt = attachment.follows_prompt, False
    parts = parts_of(attachment.pair)
    before = None
    try:
        while state.step < settings.steps:
            expert = experts[settings.expert_at(state.step, len(experts))]
            losses = _Losses(at_work(base, expert.index), expert, items, settings, state)
            before = state.generator.get_state(), {role: list(queue) for role, queue in state.queues.items()}
            role: Role = "motion" if torch.rand((), generator=state.generator) < settings.motion_ratio else "identity"
            is_dropped = bool(torch.rand((), generator=state.generator) < settings.frozen_adapter_dropout)
            preserves = bool(torch.rand((), generator=state.generator) < settings.preservation_ratio) and role == "identity"
            for parameters in parts.values():
                for parameter in parameters:
                    parameter.grad = None
            _require_gradients(parts, (expert.part(role), CONTROLLER))
            loss, preservation_loss = _backward(losses, partial(losses.own, role, is_dropped)), None
            if preserves and math.isfinite(loss):
                _require_gradients(parts, (expert.part(role),))
                preservation_loss = _backward(losses, losses.preservation)
            trained = [parameter for part in (expert.part(role), CONTROLLER) for parameter in parts[part]]
            norm = float(torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm))
            if not all(math.isfinite(value) for value in (loss, preservation_loss or 0.0, norm)):
                value, source = (loss, role) if preservation_loss is None else (preservation_loss, "motion")
                raise DivergedError(
                    f"The {role} loss is {value} on the {source} data (gradient norm {norm}) at step {state.step + 1}: "
                    "the last good state is kept; lower the learning rate or check that data."
                )
            state.is_torn = True
            for part, name in ((role, expert.part(role)), (CONTROLLER, CONTROLLER)):
                optimizer = state.optimizers.get(name)
                if optimizer is not None:
                    for group in optimizer.param_groups:
                        group["lr"] = settings.rate(part) * settings.schedule(state.step)
                    with expert.others_at_rest(optimizer) if part == CONTROLLER else nullcontext():
                        optimizer.step()
            torch.autograd.graph.increment_version(trained)  # some optimizers write past the count that fused weights go by
            state.step += 1
            before, state.is_torn = None, False
            attachment.strengths = dict.fromkeys(ROLES, 1.0)
            rate = settings.rate(role) * settings.schedule(state.step - 1)
            yield StepResult(state.step, role, loss, preservation_loss, norm, rate)
    finally:
        if before is not None:
            state.generator.set_state(before[0])
            state.queues = before[1]
        if not sys.is_finalizing():  # a run that was left ends with the interpreter, when torch is no longer to be called
            attachment.strengths = dict.fromkeys(ROLES, 1.0)
            attachment.condition = attachment.stage = None
            attachment.follows_prompt = follows_prompt
        _require_gradients(parts, tuple(parts))
        for parameters in parts.values():
            for parameter in parameters:
                parameter.grad = None


def _require_gradients(parts: Mapping[str, Sequence[torch.nn.Parameter]], trained: Sequence[str]) -> None:
    """Parameters of these parts, and no others, get gradients."""
    for part, parameters in parts.items():
        for parameter in parameters:
            parameter.requires_grad_(part in trained)


def _backward(losses: _Losses, batch_loss: Callable[[], torch.Tensor]) -> float:
    """Adds the gradients of the next batches; their mean loss. Stops at one that is not finite."""
    settings, base, mean = losses.settings, losses.base, 0.0
    for _ in range(settings.accumulation):
        rerun = checkpointed(base.transformer, losses.attachment) if settings.gradient_checkpointing else nullcontext()
        with safe_saving(base.family), rerun:
            loss = batch_loss()
            mean += loss.item() / settings.accumulation
            if not math.isfinite(mean):
                break
            (loss / settings.accumulation).backward()
    return mean


@dataclass(frozen=True)
class _Losses:
    """Losses of the next batches of a run; scalars."""

    base: Base
    expert: ExpertInTraining
    items: Mapping[Role, Sequence[PreparedItem]]
    settings: TrainSettings
    state: RunState

    @property
    def attachment(self) -> Attachment:
        """Of the expert in training."""
        return self.expert.attachment

    def own(self, role: Role, is_dropped: bool) -> torch.Tensor:
        """The base's objective on a side's own data, with the frozen side in the pass or dropped from it."""
        batch, latents, noise, timestep = self._next(role, role, self.attachment.pair.config.share_schedule)
        mask = loss_masks(batch, self.settings.background_weight, latents.device) if role == "identity" else None
        self.attachment.strengths = {other: float(other == role or not is_dropped) for other in ROLES}
        with self._lowered():
            output = self._predict(batch, latents, noise, timestep)
        return self.base.objective.loss_per_sample(output, latents, noise, timestep, mask).mean()

    def preservation(self) -> torch.Tensor:
        """Mean squared change that the identity makes to the motion's prediction on clips."""
        batch, *sample = self._next("identity", "motion", (), self.settings.preservation_batch)
        with self._lowered():
            self.attachment.strengths = {"identity": 0.0, "motion": 1.0}
            with torch.no_grad():
                prior = self._predict(batch, *sample)
            self.attachment.strengths = {"identity": 1.0, "motion": 1.0}
            return (self._predict(batch, *sample).float() - prior.float()).square().mean()

    def _next(
        self, role: Role, source: Role, share_schedule: tuple[float, ...], at_most: int | None = None
    ) -> tuple[list[PreparedItem], torch.Tensor, torch.Tensor, torch.Tensor]:
        """The next batch of `source` to train `role` on, or its first items: these, latents and noise (B, C, f, h, w), timesteps (B,)."""
        settings, generator, objective = self.settings, self.state.generator, self.base.objective
        device = next(self.base.transformer.parameters()).device
        size = settings.motion_batch if source == "motion" else settings.identity_batch
        batch = self.state.next_batch(source, self.items[source], size)[:at_most]
        self.attachment.condition = _conditions(batch, settings, self.state, device) if source == "motion" else None
        latents = torch.stack([item.latents for item in batch])
        timestep = draw_timesteps(objective, len(batch), generator, role, share_schedule, settings.timestep_bias, self.expert.within)
        self.attachment.move_to(objective.stage(timestep), objective.noise_level(timestep))
        noise = torch.randn(latents.shape, generator=generator)
        return batch, latents.to(device), noise.to(device), timestep.to(device)

    def _lowered(self) -> AbstractContextManager[None]:
        return lowered(self.base, self.settings.precision == "bf16")

    def _predict(
        self, batch: Sequence[PreparedItem], latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor
    ) -> torch.Tensor:
        """latents, noise: (B, C, f, h, w); timestep: (B,) -> the DiT's output (B, C, f, h, w)."""
        noisy = self.base.objective.add_noise(latents, noise, timestep)
        output = self.base.predict(noisy, timestep, self.base.batch_texts([item.text for item in batch]))
        self.attachment.finish_call()
        return output


def _conditions(batch: Sequence[PreparedItem], settings: TrainSettings, state: RunState, device: torch.device) -> torch.Tensor | None:
    """Embedding of a random frame of each clip (B, E), or None where there are none or they are dropped."""
    is_dropped = bool(torch.rand((), generator=state.generator) < settings.condition_drop)
    if is_dropped or any(item.conditions is None for item in batch):
        return None
    picks = [int(torch.randint(len(item.conditions), (), generator=state.generator)) for item in batch]
    return torch.stack([item.conditions[pick] for item, pick in zip(batch, picks, strict=True)]).to(device)


def loss_masks(batch: Sequence[PreparedItem], background_weight: float, device: torch.device) -> torch.Tensor | None:
    """Loss weights (B, 1, f, h, w) from the photos' subject masks, or None where no photo has one."""
    if all(item.mask is None for item in batch):
        return None
    full = torch.ones(1, *batch[0].latents.shape[1:])
    masks = torch.stack([full if item.mask is None else item.mask for item in batch]).to(device)
    return background_weight + (1 - background_weight) * masks
