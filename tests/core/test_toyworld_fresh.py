"""Figures and motions that nothing was ever chosen on: new to the base, told apart by the scores, and no part of what others score."""

from __future__ import annotations

import argparse
import hashlib
from itertools import product

import pytest
import torch

from dualreal_core.bases import load_base
from dualreal_core.commands.arguments.bench import add_arguments
from dualreal_core.commands.bench import _cases
from dualreal_core.toyworld import figures, fresh_parts, world
from dualreal_core.toyworld.figures import FIGURES, FRESH_FIGURES, random_figure
from dualreal_core.toyworld.paths import BASE_MOTIONS, EVERY_MOTION, FRESH_MOTIONS, MOTIONS, TEST_MOTIONS, TUNING_MOTIONS, canonical_path
from dualreal_core.toyworld.scores import score_identity, score_motion, sprite_bank, sprite_likeness
from dualreal_core.toyworld.text import words_of
from dualreal_core.toyworld.trial import Trial


def signed(frames):
    return frames.movedim(-1, 1).float() / 127.5 - 1


def test_random_figures_are_drawn_as_ever():
    """What the embedded base was trained on can be drawn again; fresh parts are never drawn."""
    generator = torch.Generator().manual_seed(0)
    drawn = [random_figure(generator) for _ in range(2000)]
    digest = hashlib.sha256(repr([tuple(vars(figure).values()) for figure in drawn]).encode()).hexdigest()
    assert digest.startswith("83a165759d019fd6")
    for figure in drawn:
        assert not {figure.body_ink, figure.mark_ink} & {*fresh_parts.INKS}
        assert figure.body not in fresh_parts.BODIES


def test_fresh_figures_have_no_part_or_ink_of_others():
    for table, fresh in (
        (figures.INKS, fresh_parts.INKS), (figures._BODIES, fresh_parts.BODIES), (figures._TOPS, fresh_parts.TOPS),
        (figures._EYES, fresh_parts.EYES), (figures._MOUTHS, fresh_parts.MOUTHS),
    ):  # fmt: skip
        assert not {*table} & {*fresh}
        assert all(value not in table.values() for value in fresh.values())
    for figure in FRESH_FIGURES.values():
        assert figure.body in fresh_parts.BODIES
        assert {figure.body_ink, figure.mark_ink} <= {*fresh_parts.INKS}
    shown = [ink for figure in FRESH_FIGURES.values() for ink in (figure.body_ink, figure.mark_ink)]
    assert len(shown) == len(set(shown))
    colors = {tuple(rgb) for rgb in (*figures.INKS.values(), *world.COLORS.values())}
    assert all(sum((a - b) ** 2 for a, b in zip(rgb, known, strict=True)) > 300 for rgb in fresh_parts.INKS.values() for known in colors)


@pytest.mark.parametrize("name", list(FRESH_FIGURES))
def test_a_fresh_figure_is_told_from_all_sprites(name):
    bank = sprite_bank(True)
    clip = signed(world.draw_clip(FRESH_FIGURES[name], "circle", "sky", torch.Generator().manual_seed(2)))
    score = score_identity(clip, bank.sprites.index(FRESH_FIGURES[name]), bank)
    assert bank.names[score.best] == name
    assert score.score == pytest.approx(1, abs=1e-3)
    assert sprite_likeness(clip, bank).mean(0).topk(2).values[1] < 0.9


@torch.no_grad()
def test_the_codec_shows_fresh_figures_as_well_as_others():
    base, bank = load_base("toyworld"), sprite_bank(True)
    likeness = {}
    for name, figure in {**FIGURES, **FRESH_FIGURES}.items():
        clip = signed(world.draw_clip(figure, "still", "mint", torch.Generator().manual_seed(3), 3))
        with base.encoders():
            decoded = base.decode_latents(base.encode_frames(clip))
        likeness[name] = float(sprite_likeness(decoded, bank)[:, bank.sprites.index(figure)].mean())
    assert min(likeness[name] for name in FRESH_FIGURES) > min(likeness[name] for name in FIGURES) - 0.01, likeness


@pytest.mark.parametrize("name", list(FRESH_MOTIONS))
def test_a_fresh_motion_is_told_from_all_motions(name):
    generator = torch.Generator().manual_seed(1)
    for figure in (*FIGURES.values(), *FRESH_FIGURES.values()):
        clip = signed(world.draw_clip(figure, name, "mint", generator))
        score = score_motion(clip, name, EVERY_MOTION)
        assert score.best == name
        assert score.score > 0.9
        others = [score_motion(clip, other, EVERY_MOTION).score for other in EVERY_MOTION if other != name]
        assert max(others) < 0.6


def test_fresh_paths_lie_far_from_all_others():
    def distance(one, other):
        paths = [canonical_path(name, 9) for name in (one, other)]
        first, second = (path - path.mean(0) for path in paths)
        return float((first - second).square().sum(1).mean().sqrt())

    for name in FRESH_MOTIONS:
        assert min(distance(name, other) for other in EVERY_MOTION if other != name) > 4  # cells; zigzag and swoop are 6.3 apart


def test_fresh_motions_are_called_by_words_of_their_own():
    known = {word for motion in MOTIONS.values() for word in words_of(motion.phrase)}
    for motion in FRESH_MOTIONS.values():
        assert not motion.is_base
        assert not known & {*words_of(motion.phrase)}
    assert not {*FRESH_MOTIONS} & {*BASE_MOTIONS, *TEST_MOTIONS, *TUNING_MOTIONS}


def test_the_fusion_benchmark_takes_them_on_request():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    asked = parser.parse_args(["fusion", "--fresh", "--seeds", "1", "--out", "build", "--methods", "sum"])
    assert {(case.trial.identity, case.trial.motion) for case in _cases(asked)} == {*product(FRESH_FIGURES, FRESH_MOTIONS)}
    with pytest.raises(SystemExit):
        parser.parse_args(["fusion", "--fresh", "--tuning", "--out", "build"])


def test_other_trials_are_scored_among_what_they_always_were():
    former, fresh = Trial("vex", "zigzag"), Trial("bex", "hop")
    assert (len(former.bank.sprites), len(former.motions)) == (654, 16)
    assert (len(fresh.bank.sprites), len(fresh.motions)) == (658, 19)
    assert fresh.bank.names[:654] == former.bank.names
    clip = signed(world.draw_clip(fresh.figure, "hop", "mint", torch.Generator().manual_seed(0)))
    assert fresh.score([clip])["identity_top1"] == fresh.score([clip])["motion_top1"] == 1
    assert score_motion(clip, "zigzag").best in MOTIONS
