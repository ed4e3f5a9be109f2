"""The plain training loop of methods that are not dual-aware: the same batches, noise and schedule, one optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from ..bases import Base
from ..dataset import PreparedItem
from ..method.attach import Attachment
from ..method.pair import ROLES, Role
from ..objective import Objective
from ..training.loop import DivergedError, loss_masks
from ..training.optimizers import make_optimizer
from ..training.settings import TrainSettings
from ..training.state import RunState


def fit(
    base: Base,
    parameters: list[torch.nn.Parameter],
    items: Mapping[Role, Sequence[PreparedItem]],
    settings: TrainSettings,
    attachment: Attachment | None = None,
    debiases_appearance: bool = False,
    shifts_clips: bool = False,
) -> None:
    """Trains parameters for `settings.steps`. Each step sees a batch of photos or of clips, drawn by `settings.motion_ratio`.

    Args:
        attachment: the pair that the parameters are of, which is told the stage of each sample.
        debiases_appearance: adds `debiased_loss`.
        shifts_clips: adds `shared_noise` to predictions of clips (JointTuner's appearance-independent temporal loss).

    Raises:
        DivergedError: a loss or gradient is not finite.
    """
    optimizer = make_optimizer(settings, "identity", parameters)  # one rate for all: it is set in every step
    state = RunState(0, torch.Generator().manual_seed(settings.seed), {})
    sizes = {"identity": settings.identity_batch, "motion": settings.motion_batch}
    device = next(base.transformer.parameters()).device
    for step in range(settings.steps):
        source = ROLES[int(torch.rand((), generator=state.generator) < settings.motion_ratio)]
        batch = state.next_batch(source, items[source], sizes[source])
        latents = torch.stack([item.latents for item in batch]).to(device)  # (B, C, f, h, w)
        timestep = base.objective.sample_timesteps(len(batch), state.generator).to(device)
        if attachment is not None:
            attachment.move_to(base.objective.stage(timestep), base.objective.noise_level(timestep))
        noise = torch.randn(latents.shape, generator=state.generator).to(device)
        mask = loss_masks(batch, settings.background_weight, device) if source == "identity" else None
        noisy, text = base.objective.add_noise(latents, noise, timestep), base.batch_texts([item.text for item in batch])
        output = base.predict(noisy, timestep, text)
        if shifts_clips and source == "motion":
            output = output + shared_noise(output, state.generator)
        extra = debiased_loss(base.objective, output, latents, noise, timestep, state.generator) if debiases_appearance else 0.0
        value = (base.objective.loss_per_sample(output, latents, noise, timestep, mask) + extra).mean()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm))
        if not (math.isfinite(value.item()) and math.isfinite(norm)):
            raise DivergedError(f"The loss is {value.item()} (gradient norm {norm}) at step {step + 1}: lower the learning rate.")
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.schedule(step)
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None


def debiased_loss(
    objective: Objective,
    output: torch.Tensor,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timestep: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The loss of frames relative to a random anchor frame (MotionDirector's, Zhao et al., 2024), per sample (B,).

    output, latents, noise: (B, C, f, h, w), timestep: (B,). Targets are linear in latents and noise, so those are taken relative
    to the anchor instead.
    """
    anchor = int(torch.randint(latents.shape[2], (), generator=generator))
    return objective.loss_per_sample(*(relative_to_frame(tensor, anchor) for tensor in (output, latents, noise)), timestep)


def relative_to_frame(frames: torch.Tensor, anchor: int, b: float = 1.0) -> torch.Tensor:
    """sqrt(b^2 + 1) eps_i - b eps_anchor: what frames share, their look, counts less; frames: (B, C, f, h, w)."""
    return math.sqrt(b * b + 1) * frames - b * frames[:, :, anchor : anchor + 1]


def shared_noise(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normal noise that all channels and frames of a sample have in common: output (B, C, f, h, w) -> (B, 1, 1, h, w).

    It is independent of the target, so that the expected gradient is that of the plain loss; what varies more from step to step is
    the gradient of what frames share.
    """
    batch, _, _, height, width = output.shape
    return torch.randn(batch, 1, 1, height, width, generator=generator).to(output)
