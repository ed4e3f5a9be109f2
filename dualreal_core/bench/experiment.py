"""What one trial teaches the embedded base, side by side: each side alone, their naive sum, and both trained jointly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from ..api import Training, TrainingData, prepare_data
from ..bases import Base
from ..dataset import PreparedSet
from ..files.atomic import atomic_path
from ..gating.pair_gate import GateWords
from ..method.attach import Attachment
from ..method.blend import Blend, BlendRecord
from ..method.pair import AdapterPair, Role
from ..sampling import SamplingSettings, default_sampling, sample
from ..toyworld import world
from ..toyworld.scores import score_motion
from ..toyworld.trial import CROP_MARGIN, SUBJECT, TRIGGER, Trial, retention
from ..training.loop import StepResult
from ..training.recipes import DUALREAL, Recipe, with_train
from .joining.turns import PairAt, Turns
from .prompts import KNOWN_MOTIONS, MORE_KNOWN_MOTIONS
from .recipes import FIXED_WEIGHTS, STEPS

SAMPLE_SEED = 1000
DEMO_MOTIONS = (*KNOWN_MOTIONS, *MORE_KNOWN_MOTIONS[:2])
"""Known motions, and backgrounds, that the demo asks the figure for."""
KNOWN_STEPS = 8
"""Denoising steps of these videos: enough to tell which motion it is."""
TOY_RECIPE = replace(
    with_train(
        DUALREAL, steps=STEPS, motion_ratio=0.5, learning_rate=2e-3, warmup_steps=20, identity_batch=8, motion_batch=4, evaluate_every=0
    ),
    conditions_motion=False,
    crop_margin=CROP_MARGIN,
)
"""Our recipe at the toy world's scale. A photo takes a ninth of the time of a clip, so that twice as many in a batch cost little; the
other methods see as many photos as clips (`recipes.plain`). Photos are half as large again as a frame, so crops fill that margin."""

OnStep = Callable[[StepResult, int], None]


@dataclass(frozen=True)
class Side:
    """The videos of one candidate at the trial's prompts, and their mean scores.

    Attributes:
        known_motion: mean score of known motions, where the figure is asked for `DEMO_MOTIONS`.
    """

    scores: dict[str, float]
    videos: list[torch.Tensor]
    known_motion: float


def load_trial(base: Base, trial: Trial, recipe: Recipe, folder: Path) -> dict[Role, PreparedSet]:
    """Writes the trial's photos and clips below `folder` unless these very ones are there, and prepares them."""
    note, wanted = folder / "trial.json", json.dumps(asdict(trial))
    if not note.exists() or note.read_text(encoding="utf-8") != wanted:
        trial.write_photos(folder / "identity")
        trial.write_clips(folder / "motion")
        with atomic_path(note) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
    data = TrainingData(folder / "identity", folder / "motion", trigger=TRIGGER)
    return prepare_data(base, data.scan(base, recipe), folder / "cache")


def one_role(recipe: Recipe, role: Role, **pair: object) -> Recipe:
    """The recipe of half of the steps, all of them of one role, on its own data, with nothing left out of the pass, at even weights, and
    with as many photos in a batch as clips."""
    return with_train(
        replace(recipe, pair={**recipe.pair, **FIXED_WEIGHTS, **pair}),
        steps=recipe.train.steps // 2,
        motion_ratio=float(role == "motion"),
        identity_batch=recipe.train.motion_batch,
        frozen_adapter_dropout=0.0,
        preservation_ratio=0.0,
    )


def train_side(
    base: Base, data: dict[Role, PreparedSet], recipe: Recipe, role: Role, folder: Path, on_step: OnStep | None = None
) -> AdapterPair:
    """One side alone, for half of the recipe's steps: a pair whose other side is absent, at even weights."""
    other = "motion" if role == "identity" else "identity"
    return finish(Training(base, data, one_role(recipe, role, **{f"{other}_kind": "none"}), folder), on_step)


def train_joint(
    base: Base,
    data: dict[Role, PreparedSet],
    recipe: Recipe,
    folder: Path,
    on_step: OnStep | None = None,
    out: Path | None = None,
    words: GateWords | None = None,
) -> AdapterPair:
    """Both sides jointly, with a prompt gate for `words`, if given; written to `out`, if given."""
    training = Training(base, data, recipe, folder, {"prompts": {"identity": SUBJECT, "motion": None, "trigger": TRIGGER}})
    finish(training, on_step)
    if words is not None:
        training.fit_gate(words, folder / "texts")
    if out is not None:
        training.save(out)
    return training.pair


def finish(training: Training, on_step: OnStep | None = None) -> AdapterPair:
    """Trains to the end, from the last state that was saved; the pair is detached afterwards."""
    try:
        with closing(training.steps(is_resumed=training.directory.settings_file.exists(), save_every=200)) as steps:
            for done in steps:
                if on_step is not None:
                    on_step(done, training.recipe.train.steps)
    finally:
        training.close()
    return training.pair


def evaluate(base: Base, trial: Trial, pair: AdapterPair | None, record: BlendRecord | None = None) -> Side:
    """Samples the trial's prompts, and the figure with known motions in few steps, and scores the videos."""
    videos = sample_videos(base, trial, trial.prompts, default_sampling(base), pair, record=record)
    known = [world.caption(SUBJECT, *asked) for asked in DEMO_MOTIONS]
    moving = sample_videos(base, trial, known, replace(default_sampling(base), num_steps=KNOWN_STEPS), pair)
    scores = [score_motion(video, motion).score for video, (motion, _) in zip(moving, DEMO_MOTIONS, strict=True)]
    return Side(trial.score(videos), videos, fmean(scores))


def sample_videos(
    base: Base,
    trial: Trial,
    prompts: Sequence[str],
    settings: SamplingSettings,
    pair: AdapterPair | None = None,
    blend: Blend | None = None,
    record: BlendRecord | None = None,
    turns: PairAt | None = None,
    strengths: Mapping[Role, float] | None = None,
) -> list[torch.Tensor]:
    """One video per prompt, (F, 3, 32, 32) in [-1, 1], all in one batch. The seed is the trial's."""
    settings = replace(settings, seed=SAMPLE_SEED + 100 * trial.seed)
    with base.encoders(), torch.no_grad():
        texts, negative = [base.encode_text(prompt) for prompt in prompts], base.encode_text("")
        condition = base.embed_image(trial.reference_image())
    if turns is not None:
        acting = Turns(base.transformer, turns, blend)
    else:
        acting = nullcontext() if pair is None else Attachment(base.transformer, pair, blend)
    with acting as attachment:
        if record is not None and isinstance(attachment, Attachment):
            attachment.record = record
        if strengths is not None and isinstance(attachment, Attachment):
            attachment.strengths = strengths
        latents = sample(base, texts, negative, settings, attachment, condition)
    with base.encoders(), torch.no_grad():
        return [base.decode_latents(video).float() for video in latents]


def retentions(sides: dict[str, Side], name: str) -> dict[str, float | None]:
    """What candidate `name` keeps of each side, relative to that side trained alone."""
    return {
        f"retention_{role}": retention(sides[name].scores[role], sides["base"].scores[role], sides[role].scores[role])
        for role in ("identity", "motion")
    }


def known_motions_kept(sides: dict[str, Side], name: str) -> float | None:
    """The score of known motions of candidate `name` over the base's; None where the base has none."""
    return sides[name].known_motion / sides["base"].known_motion if sides["base"].known_motion > 0 else None
