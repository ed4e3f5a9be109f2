"""Prompt gates of the benchmark's pairs: fitted to words alone, as a user's is, or learned through the denoising loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..bases import Base
from ..dataset import PreparedItem, PreparedSet
from ..gating.pair_gate import GateWords, fit_prompt_gate
from ..method.attach import Attachment
from ..method.pair import AdapterPair, Role, with_gate
from ..method.prompt_gate import PromptGate
from ..toyworld.trial import TRIGGER, Trial
from ..training.settings import TrainSettings
from .prior import PRIOR_NAMES, prior_items

LOSS_SHARE, LOSS_BATCH, LOSS_RATE = 0.25, 4, 0.02
"""Of the gate that learns through the denoising loss: steps, as a share of those of the sides; all three kinds of samples are in each."""
SHARPNESS = 2.0
"""Of the sigmoid that stands for the gate while it learns so, as what is clamped has no gradient; both rise alike in the middle."""


def with_fitted_gate(base: Base, trial: Trial, pair: AdapterPair, folder: Path) -> AdapterPair:
    """The pair with a gate for the words that trigger and captions tell, as after `dualreal train`.

    Args:
        folder: where encoded prompts are kept.
    """
    return fit_prompt_gate(base, pair, gate_words(trial), folder)[0]


def gate_words(trial: Trial) -> GateWords:
    """What trigger and captions of a trial tell a gate."""
    photos, clips = ([example.caption for example in examples] for examples in (trial.photos(), trial.clips()))
    return GateWords.told(trigger=TRIGGER, photo_captions=photos, clip_captions=clips)


def with_gate_by_loss(
    base: Base, data: Mapping[Role, PreparedSet], prior: Mapping[str, torch.Tensor], pair: AdapterPair, settings: TrainSettings
) -> AdapterPair:
    """The pair with a gate that learned through the base's objective, both sides frozen.

    Photos and clips have their own targets; the base's own stills and videos of plain captions the base's prediction.
    """
    seed, steps = settings.seed, max(20, round(LOSS_SHARE * settings.steps))
    items = {role: data[role].items for role in PRIOR_NAMES}
    plain = {role: prior_items(base, role, prior[name], seed) for role, name in PRIOR_NAMES.items()}
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gate = _SoftGate(items["motion"][0].text.shape[-1])
    learning = with_gate(pair.requires_grad_(False), gate)
    optimizer = torch.optim.Adam(gate.parameters(), lr=LOSS_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LOSS_RATE, total_steps=steps, pct_start=0.1, cycle_momentum=False)
    with Attachment(base.transformer, learning) as attachment:

        def loss(chosen: list[PreparedItem], is_plain: bool) -> torch.Tensor:
            batch = [chosen[pick] for pick in torch.randint(len(chosen), (LOSS_BATCH,), generator=generator).tolist()]
            latents, text = torch.stack([item.latents for item in batch]), base.batch_texts([item.text for item in batch])
            timestep = base.objective.sample_timesteps(LOSS_BATCH, generator)
            noise = torch.randn(latents.shape, generator=generator)
            noisy = base.objective.add_noise(latents, noise, timestep)
            attachment.move_to(base.objective.stage(timestep), base.objective.noise_level(timestep))
            predicted = base.predict(noisy, timestep, text)
            if not is_plain:
                return base.objective.loss_per_sample(predicted, latents, noise, timestep).mean()
            attachment.detach()
            with torch.no_grad():
                wanted = base.predict(noisy, timestep, text)
            attachment.attach()
            return (predicted - wanted).square().mean()

        for step in range(steps):
            role = ("identity", "motion")[step % 2]
            optimizer.zero_grad()
            for chosen, is_plain in ((items["identity"], False), (items["motion"], False), (plain[role], True)):
                loss(chosen, is_plain).backward()
            optimizer.step()
            schedule.step()
    learned = PromptGate(gate.features.in_features, gate.features.out_features)
    learned.load_state_dict(gate.state_dict())
    return with_gate(pair, learned.requires_grad_(False))


class _SoftGate(PromptGate):
    """A gate whose logits have a gradient wherever they are."""

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(SHARPNESS * self.logits(text))
