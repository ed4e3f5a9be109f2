"""The share schedule of a trained pair by previews: a few short ones at several early shares, held against the pair's own sides alone."""

from __future__ import annotations

from ...bases import Base
from ...method.blend import SharePlan
from ...method.pair import AdapterPair
from ...metrics.preview_judge import RULES, Scores, judge
from ...toyworld.trial import Trial
from ..candidate import Candidate
from .looks import looks_kept
from .picked import decoded, previews

EARLY_SHARES = (0.3, 0.5, 0.6)
"""Of the identity over the first fifth of denoising, beside the pair's own: earlier shares settle paths and shapes."""
LEAST_GAIN = 0.02
"""In the smaller of both scores, from which on the pair's own schedule is left: previews tell less apart."""


def previewed(base: Base, trial: Trial, pair: AdapterPair) -> Candidate:
    """The pair at the early shares that previews favour. The candidate's note names them."""
    own = pair.config.share_schedule
    schedules = {f"{own[0]:g}": own, **{f"{early:g}": (early, early, *own[2:]) for early in EARLY_SHARES}}
    blends = {name: SharePlan(schedule).blend(pair.config) for name, schedule in schedules.items()}
    candidates = {name: previews(base, trial, pair, blend) for name, blend in blends.items()}
    by_identity, by_motion = (previews(base, trial, pair, strengths=strengths) for strengths in ((1.0, 0.0), (0.0, 1.0)))
    plain = previews(base, trial, None)
    movement = judge(candidates, by_identity, by_motion, plain)
    shown = {name: decoded(base, latents) for name, latents in candidates.items()}
    looks = looks_kept(shown, decoded(base, by_identity), decoded(base, plain))
    name = chosen({name: Scores(movement[name].movement, looks[name]) for name in blends})
    return Candidate(pair, blend=blends[name], note=f"early share {name}")


def chosen(scores: dict[str, Scores]) -> str:
    """The name that keeps most of what is kept least; the first, which is the pair's own, unless another one gains `LEAST_GAIN`."""
    kept = {name: RULES["smaller"](one.clipped()) if one.clipped() else 0.0 for name, one in scores.items()}
    own, best = next(iter(kept)), max(kept, key=kept.__getitem__)
    return best if kept[best] >= kept[own] + LEAST_GAIN else own
