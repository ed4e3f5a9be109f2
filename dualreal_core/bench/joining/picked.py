"""The blend that does best in previews: a few short ones of each, judged against previews of either side alone, without exact scores."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from ...bases import Base
from ...method.attach import Attachment
from ...method.blend import Blend
from ...method.combine import combine
from ...method.pair import ROLES, AdapterPair
from ...metrics.preview_judge import Scores, best_of, judge
from ...precision import lowered
from ...sampling import default_sampling, sample
from ...toyworld.trial import Trial
from ..candidate import Candidate
from .forms import BEST_FORM, curves_of
from .looks import looks_kept

DIALS = (0.2, 0.0, 0.4, 0.6, 0.8)
"""Of the identity early in denoising; of equals the first is taken."""
NUM_PREVIEWS, PREVIEW_STEPS, PREVIEW_SEED = 4, 12, 7000
"""Videos and denoising steps of each preview; the noise is another one than that of what is measured."""


def picked(base: Base, trial: Trial, identity: AdapterPair, motion: AdapterPair) -> Candidate:
    """Both sides at the dial that previews favour. The candidate's note names it."""
    pair = combine(identity, motion)
    blends = {f"{dial:g}": curves_of(BEST_FORM, dial).blend(pair.config) for dial in DIALS}
    candidates = {name: previews(base, trial, pair, blend) for name, blend in blends.items()}
    by_identity, by_motion, plain = (previews(base, trial, side) for side in (identity, motion, None))
    movement = judge(candidates, by_identity, by_motion, plain)
    shown = {name: decoded(base, latents) for name, latents in candidates.items()}
    looks = looks_kept(shown, decoded(base, by_identity), decoded(base, plain))
    name = best_of({name: Scores(movement[name].movement, looks[name]) for name in blends}) or next(iter(blends))
    return Candidate(pair, blend=blends[name], note=f"identity_early={name}")


def decoded(base: Base, latents: torch.Tensor) -> list[torch.Tensor]:
    """Videos (F, 3, H, W) in [-1, 1]."""
    with base.encoders(), torch.no_grad():
        return [base.decode_latents(video).float() for video in latents]


def previews(
    base: Base, trial: Trial, pair: AdapterPair | None, blend: Blend | None = None, count: int = NUM_PREVIEWS,
    strengths: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:  # fmt: skip
    """Latents (V, C, F, h, w) of the trial's prompts; strengths of the identity and the motion."""
    prompts = (trial.prompts * count)[:count]
    return rollouts(base, prompts, pair, blend, PREVIEW_SEED + 100 * trial.seed, strengths)


def rollouts(
    base: Base, prompts: list[str], pair: AdapterPair | None, blend: Blend | None = None, seed: int = PREVIEW_SEED,
    strengths: tuple[float, float] = (1.0, 1.0),
) -> torch.Tensor:  # fmt: skip
    """Latents (V, C, F, h, w), one video for each prompt, in few steps and lower precision."""
    settings = replace(default_sampling(base, seed), num_steps=PREVIEW_STEPS)
    with base.encoders(), torch.no_grad():
        texts, negative = [base.encode_text(prompt) for prompt in prompts], base.encode_text("")
    with lowered(base, True), nullcontext() if pair is None else Attachment(base.transformer, pair, blend) as attachment:
        if attachment is not None:
            attachment.strengths = dict(zip(ROLES, strengths, strict=True))
        return sample(base, texts, negative, settings, attachment)
