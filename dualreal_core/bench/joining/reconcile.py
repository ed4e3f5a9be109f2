"""Reconciliation: a copy of the identity side learns, without any photo or clip, to leave the motion side's prediction as it is.

Its material are videos that both sides make themselves. What it is to keep, and what it is to leave alone, the sides as they were say.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch

from ...bases import Base
from ...method.attach import Attachment
from ...method.blend import Blend
from ...method.combine import combine
from ...method.curves import BlendCurves
from ...method.pair import ROLES, AdapterPair, Role, shapes_of
from ...objective import WHOLE, SigmaRange
from ...precision import lowered
from ...toyworld import world
from ...toyworld.paths import MOTIONS
from ...toyworld.trial import SUBJECT, Trial
from .forms import BEST_FORM, curves_of
from .picked import rollouts

DIAL = 0.2
"""Of the curves that it learns at."""
STEPS, RATE, WARMUP, BATCH, NUM_VIDEOS = 80, 1e-3, 8, 3, 10
LATE: SigmaRange = (0.0, 0.77)
"""Noise levels at which the fused prompt keeps the identity: where looks are drawn."""
SEED = 9000
Strengths = dict[Role, float]
ON, IDENTITY, MOTION = {"identity": 1.0, "motion": 1.0}, {"identity": 1.0, "motion": 0.0}, {"identity": 0.0, "motion": 1.0}
"""Strengths of both sides in the pass."""


@dataclass(frozen=True)
class Material:
    """Videos that sides made: latents (N, C, F, h, w), and the embeddings of what they were asked for."""

    latents: torch.Tensor
    texts: list[torch.Tensor]


def reconcile(
    base: Base, trial: Trial, identity: AdapterPair, motion: AdapterPair, curves: BlendCurves | None = None, steps: int = STEPS
) -> AdapterPair:
    """The identity side alone, reconciled with a motion side.

    *keep*: on its own videos of known motions, alone, and every other step on fused videos late in denoising, it predicts what it
    did. *cross*: on the motion's own videos of known subjects, with the motion on, the prediction is that of the motion alone.

    Args:
        trial: for its words.
        curves: the blend that it is to be used at.
    """
    before, after = combine(identity, motion), combine(identity, motion)
    blend = (curves or curves_of(BEST_FORM, DIAL)).blend(before.config)
    own, moving, fused = _material(base, trial, before, identity, motion, blend)
    generator = torch.Generator().manual_seed(trial.seed)
    parameters = after.role_parameters("identity")
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    teacher, student = (Attachment(base.transformer, pair, blend) for pair in (before, after))
    for attachment in (teacher, student):
        attachment.detach()

    def difference(material: Material, taught: Strengths, learning: Strengths, within: SigmaRange = WHOLE) -> torch.Tensor:
        picks = torch.randperm(len(material.latents), generator=generator)[:BATCH]
        latents, texts = material.latents[picks], base.batch_texts([material.texts[pick] for pick in picks.tolist()])
        timestep = base.objective.sample_within(len(picks), generator, within)
        noisy = base.objective.add_noise(latents, torch.randn(latents.shape, generator=generator), timestep)

        def predict(attachment: Attachment, strengths: Strengths) -> torch.Tensor:
            with attachment, lowered(base, True):
                attachment.strengths = strengths
                attachment.move_to(base.objective.stage(timestep), base.objective.noise_level(timestep))
                return base.predict(noisy, timestep, texts).float()

        with torch.no_grad():
            wanted = predict(teacher, taught)
        return (predict(student, learning) - wanted).square().mean()

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        terms = [(own, IDENTITY, IDENTITY), (moving, MOTION, ON)] + [(fused, ON, ON, LATE)] * (step % 2)
        for term in terms:
            difference(*term).backward()
        optimizer.step()
    return _identity_alone(after)


def between(identity: AdapterPair, reconciled: AdapterPair, motion: AdapterPair, share: float = 0.5) -> AdapterPair:
    """Both sides, the identity's update part of the way to its reconciled copy's; exactly, as their ranks lie side by side."""
    old, new = combine(identity, motion), combine(reconciled, motion)
    widths = {role: shapes_of(old, role) for role in ROLES}
    widths["identity"] = {key: (width, out, 2 * rank) for key, (width, out, rank) in widths["identity"].items()}
    rank, alpha = old.config.identity_rank, old.config.identity_alpha
    pair = AdapterPair(replace(old.config, identity_rank=2 * rank, identity_alpha=2 * alpha), lora_shapes=widths)
    pair.sides["motion"].load_state_dict(old.sides["motion"].state_dict())
    with torch.no_grad():
        for key, adapter in pair.sides["identity"].items():
            both = old.sides["identity"][key], new.sides["identity"][key]
            adapter.down.weight.copy_(torch.cat([one.down.weight for one in both]))
            adapter.up.weight.copy_(torch.cat([(1 - share) * both[0].up.weight, share * both[1].up.weight], dim=1))
    return pair.requires_grad_(False)


def _material(
    base: Base, trial: Trial, pair: AdapterPair, identity: AdapterPair, motion: AdapterPair, blend: Blend
) -> list[Material]:
    """Of the identity alone with known motions, of the motion alone with known subjects, and of the fused prompts."""
    drawn, backgrounds = random.Random(SEED + trial.seed), list(world.BACKGROUNDS)
    known_motions = [name for name, one in MOTIONS.items() if one.is_base]
    looks = world.all_looks()
    moves = [world.caption(SUBJECT, drawn.choice(known_motions), drawn.choice(backgrounds)) for _ in range(NUM_VIDEOS)]
    others = [world.caption(drawn.choice(looks).phrase, trial.motion, drawn.choice(backgrounds)) for _ in range(NUM_VIDEOS)]
    asked = ((moves, identity, None), (others, motion, None), (trial.prompts, pair, blend))
    materials = []
    for number, (prompts, acting, own_blend) in enumerate(asked):
        latents = rollouts(base, prompts, acting, own_blend, SEED + 1000 * number + 100 * trial.seed)
        with base.encoders(), torch.no_grad():
            materials.append(Material(latents, [base.encode_text(prompt) for prompt in prompts]))
    return materials


def _identity_alone(pair: AdapterPair) -> AdapterPair:
    alone = AdapterPair(replace(pair.config, motion_kind="none"), lora_shapes={"identity": shapes_of(pair, "identity")})
    alone.sides["identity"].load_state_dict(pair.sides["identity"].state_dict())
    return alone.requires_grad_(False)
