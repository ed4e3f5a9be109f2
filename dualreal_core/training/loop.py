"""Dual-aware Adaptation (paper, section 3.2): each step trains one side, the other stays in the pass as a frozen prior.

Beyond the paper: crossing, by which a side also learns to leave the other's prediction on the other's data as it is, and
timesteps that gather where the course favours the side in training (`timesteps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from ..bases import Base
from ..dataset import PreparedItem
from ..errors import InputError
from ..method.attach import Attachment
from ..method.pair import ROLES, Role
from ..precision import mixed
from .checkpointing import checkpointed, safe_saving
from .settings import TrainSettings
from .state import RunState
from .timesteps import draw_timesteps

METHOD = 2
"""Another number wherever the same settings begin to train another pair: runs of one are not continued, or taken for done, by
another. 1: crossing took the place of a side's own step. 2: crossing adds to it."""


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. `step` counts from 1; `gradient_norm` is before clipping.

    `loss` is the base's own objective on the trained side's data; `cross_loss`, in a step that also saw the other side's
    data, the mean squared change of the other side's prediction there.
    """

    step: int
    role: Role
    loss: float
    cross_loss: float | None
    gradient_norm: float
    learning_rate: float


class DivergedError(InputError):
    """The loss or a gradient is no number any more; the weights are still those of the last good step."""


def train(
    base: Base,
    attachment: Attachment,
    items: Mapping[Role, Sequence[PreparedItem]],
    settings: TrainSettings,
    state: RunState,
) -> Iterator[StepDone]:
    """Trains until `settings.steps`, yielding after every optimizer step; the caller may stop between any two.

    The resting side's parameters do not require gradients during a step, so their gradients are never computed and
    nothing of the optimizer touches them. The pair's gradients flags are left on at the end. A step left by an
    exception is undone, unless the optimizers were at work: then `state.is_torn` stays set.

    Raises:
        DivergedError: a loss or gradient is not finite; nothing was changed by that step.
    """
    pair, device = attachment.pair, next(base.transformer.parameters()).device
    parts = {role: pair.role_parameters(role) for role in ROLES} | {"controller": pair.controller_parameters()}
    before = None
    try:
        while state.step < settings.steps:
            before = state.generator.get_state(), {role: list(queue) for role, queue in state.queues.items()}
            role: Role = "motion" if torch.rand((), generator=state.generator) < settings.motion_ratio else "identity"
            resting: Role = "identity" if role == "motion" else "motion"
            is_dropped = bool(torch.rand((), generator=state.generator) < settings.resting_drop)
            is_crossed = bool(torch.rand((), generator=state.generator) < settings.cross_ratio(role))
            trained_parts = (role, "controller")
            for parameters in parts.values():
                for parameter in parameters:
                    parameter.grad = None
            losses: dict[Role, float] = {}
            for source in (role, resting) if is_crossed else (role,):
                _let_learn(parts, trained_parts if source == role else (role,))
                strengths = {role: 1.0, resting: 0.0 if is_dropped and source == role else 1.0}
                losses[source] = _backward(base, attachment, items[source], role, source, strengths, settings, state, device)
                if not math.isfinite(losses[source]):
                    break
            trained = [parameter for part in trained_parts for parameter in parts[part]]
            norm = float(torch.nn.utils.clip_grad_norm_(trained, settings.clip_norm))
            if not all(math.isfinite(value) for value in (*losses.values(), norm)):
                raise DivergedError(
                    f"The {role} loss is {losses[source]} on the {source} data (gradient norm {norm}) at step {state.step + 1}: "
                    "the last good state is kept; lower the learning rate or check that data."
                )
            state.is_torn = True
            for part in trained_parts:
                if part in state.optimizers:
                    rate = settings.rate(part) * settings.schedule(state.step)
                    for group in state.optimizers[part].param_groups:
                        group["lr"] = rate
                    state.optimizers[part].step()
            torch.autograd.graph.increment_version(trained)  # some optimizers write past the count that folded weights go by
            state.step += 1
            before, state.is_torn = None, False
            attachment.strengths = dict.fromkeys(ROLES, 1.0)
            rate = settings.rate(role) * settings.schedule(state.step - 1)
            yield StepDone(state.step, role, losses[role], losses.get(resting), norm, rate)
    finally:
        if before is not None:
            state.generator.set_state(before[0])
            state.queues = before[1]
        attachment.strengths = dict.fromkeys(ROLES, 1.0)
        attachment.condition = attachment.stage = None
        _let_learn(parts, tuple(parts))
        for parameters in parts.values():
            for parameter in parameters:
                parameter.grad = None


def _let_learn(parts: Mapping[str, Sequence[torch.nn.Parameter]], learning: Sequence[str]) -> None:
    """Parameters of these parts, and no others, get gradients."""
    for part, parameters in parts.items():
        for parameter in parameters:
            parameter.requires_grad_(part in learning)


def _backward(
    base: Base,
    attachment: Attachment,
    items: Sequence[PreparedItem],
    role: Role,
    source: Role,
    strengths: Mapping[Role, float],
    settings: TrainSettings,
    state: RunState,
    device: torch.device,
) -> float:
    """Adds the gradients of the next batches of `source`, on which `role` trains; their mean loss. Stops at one that is not finite."""
    mean = 0.0
    for _ in range(settings.accumulation):
        attachment.strengths = dict(strengths)
        rerun = checkpointed(base.transformer, attachment) if settings.gradient_checkpointing else nullcontext()
        with safe_saving(base.family), rerun:
            loss = _batch_loss(base, attachment, items, role, source, settings, state, device)
            mean += loss.item() / settings.accumulation
            if not math.isfinite(mean):
                break
            (loss / settings.accumulation).backward()
    return mean


def _batch_loss(
    base: Base,
    attachment: Attachment,
    items: Sequence[PreparedItem],
    role: Role,
    source: Role,
    settings: TrainSettings,
    state: RunState,
    device: torch.device,
) -> torch.Tensor:
    """Mean loss of the next batch of `source`, on which `role` trains; a scalar."""
    batch = state.next_batch(source, items, settings.motion_batch if source == "motion" else settings.identity_batch)
    attachment.condition = _conditions(batch, settings, state, device) if source == "motion" else None
    latents = torch.stack([item.latents for item in batch])  # (B, C, f, h, w)
    course = attachment.pair.config.course if source == role else ()
    timestep = draw_timesteps(base.objective, len(batch), state.generator, role, course, settings.course_focus)
    attachment.stage = base.objective.stage(timestep)
    noise = torch.randn(latents.shape, generator=state.generator)
    latents, noise, timestep = latents.to(device), noise.to(device), timestep.to(device)
    noisy = base.objective.add_noise(latents, noise, timestep)
    text = base.batch_texts([item.text for item in batch])
    mask = loss_masks(batch, settings.background_weight, device) if source == "identity" else None
    with mixed(base, attachment.pair, lowers=settings.precision == "bf16"):
        if source != role:
            with torch.no_grad():
                attachment.strengths = {**attachment.strengths, role: 0.0}
                alone = base.predict(noisy, timestep, text)
            attachment.strengths = {**attachment.strengths, role: 1.0}
            return (base.predict(noisy, timestep, text).float() - alone.float()).square().mean()
        output = base.predict(noisy, timestep, text)
    return base.objective.loss_per_sample(output, latents, noise, timestep, mask).mean()


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
