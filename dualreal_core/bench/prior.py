"""Prior preservation as in DreamBooth (Ruiz et al., 2023): the base's own videos and stills of plain captions, among photos and clips.

They are further items of both sets, so that the loop stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..bases import Base
from ..dataset import PreparedItem, PreparedSet
from ..method.pair import Role
from ..sampling import default_sampling, sample
from ..toyworld import world
from ..toyworld.paths import BASE_MOTIONS
from ..toyworld.trial import NAMELESS

NUM_OWN = 60
"""Videos, and stills, of the base's own: six of each known motion."""
PRIOR_SEED, PRIOR_STEPS = 20_000, 20
PRIOR_NAMES: dict[Role, str] = {"identity": "stills", "motion": "videos"}
"""What each side's set is mixed with."""


def prior_captions(role: Role, seed: int) -> list[str]:
    """Plain captions, as the base was trained on: every other one of a figure without a name; those of the motion with known motions."""
    draw = random.Random(f"{role} {seed}")
    looks, backgrounds = world.all_looks(), list(world.BACKGROUNDS)
    captions = []
    for number in range(NUM_OWN):
        subject = NAMELESS if number % 2 else draw.choice(looks).phrase
        motion = BASE_MOTIONS[number // 2 % len(BASE_MOTIONS)] if role == "motion" else None
        captions.append(world.caption(subject, motion, draw.choice(backgrounds)))
    return captions


def sample_prior(base: Base, seed: int) -> dict[str, torch.Tensor]:
    """Latents (N, C, F, h, w) of the base's own stills and videos, by name."""
    made = {}
    for number, (role, name) in enumerate(PRIOR_NAMES.items()):
        settings = replace(default_sampling(base, PRIOR_SEED + 1000 * number + 100 * seed), num_steps=PRIOR_STEPS)
        settings = settings if role == "motion" else replace(settings, num_frames=1)
        with base.encoders(), torch.no_grad():
            texts, negative = [base.encode_text(caption) for caption in prior_captions(role, seed)], base.encode_text("")
        made[name] = sample(base, texts, negative, settings).contiguous()
    return made


def prior_items(base: Base, role: Role, latents: torch.Tensor, seed: int) -> list[PreparedItem]:
    """The base's own as items of a set."""
    with base.encoders(), torch.no_grad():
        texts = [base.encode_text(caption) for caption in prior_captions(role, seed)]
    return [
        PreparedItem(own, text, None, None, f"prior {number}") for number, (own, text) in enumerate(zip(latents, texts, strict=True))
    ]


def mixed(
    base: Base, data: Mapping[Role, PreparedSet], prior: Mapping[str, torch.Tensor], seed: int, roles: Sequence[Role]
) -> dict[Role, PreparedSet]:
    """The sets, those of `roles` half and half with the base's own: own files are repeated until they are as many."""
    sets = dict(data)
    for role in roles:
        own, added = data[role].items, prior_items(base, role, prior[PRIOR_NAMES[role]], seed)
        sets[role] = replace(data[role], items=[*own * (len(added) // len(own)), *added])
    return sets
