"""The judge of previews, on clips whose subject and path are known."""

from __future__ import annotations

import pytest
import torch

from dualreal_core.metrics.preview_judge import Scores, best_of, energy_track, judge
from dualreal_core.toyworld.figures import FIGURES
from dualreal_core.toyworld.model import load_codec
from dualreal_core.toyworld.paths import canonical_path
from dualreal_core.toyworld.world import FREE_CELLS, Look, draw

START = FREE_CELLS / 2
FIGURE, OTHER = FIGURES["vex"], Look("circle", "red")


def latents(subject: object, path: torch.Tensor, background: str = "mint", shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """(16, 9, 8, 8)"""
    places = (path + START + torch.tensor(shift)).round().long().clamp(0, FREE_CELLS)
    frames = draw(subject, background, places).movedim(-1, 1).float() / 127.5 - 1
    return load_codec().encode(frames).transpose(0, 1)


def paths() -> tuple[torch.Tensor, torch.Tensor]:
    """The motion's, and that of the references without it."""
    return canonical_path("zigzag", 9), 0.5 * canonical_path("sway", 9)


def test_what_keeps_more_of_a_path_moves_more():
    wanted, usual = paths()
    kept = {share: latents(FIGURE, share * wanted + (1 - share) * usual) for share in (1.0, 0.6, 0.2, 0.0)}
    found = judge(kept, latents(FIGURE, usual), latents(OTHER, wanted))
    movement = [found[share].movement for share in kept]
    assert movement == sorted(movement, reverse=True)
    assert movement[0] > 0.85 and 0.4 < movement[1] < 0.8 and movement[-1] == pytest.approx(0)
    assert all(one.looks > 0.6 for one in found.values())


def test_looks_are_those_of_the_subject_wherever_it_is():
    wanted, usual = paths()
    candidates = {
        "figure": latents(FIGURE, wanted, shift=(-1, 1)),
        "other": latents(OTHER, wanted),
        "third": latents(Look("square", "blue"), wanted),
    }
    mixed = {"half": (candidates["figure"] + latents(OTHER, wanted, shift=(-1, 1))) / 2}
    looks = {name: one.looks for name, one in judge({**candidates, **mixed}, latents(FIGURE, usual), latents(OTHER, wanted)).items()}
    assert looks["figure"] > 0.5 and looks["other"] == pytest.approx(0, abs=0.01)
    assert looks["third"] < looks["figure"] - 0.1 and looks["other"] < looks["half"] < looks["figure"]


def test_zero_is_what_the_base_does_where_it_is_given():
    wanted, usual = paths()
    base, motion = latents(OTHER, usual), latents(OTHER, wanted)
    found = judge({"base": base, "motion": motion}, latents(FIGURE, usual), motion, base)
    assert found["base"].movement == pytest.approx(0) and found["motion"].movement == pytest.approx(1)
    assert found["base"].looks == pytest.approx(0)


def test_several_videos_count_as_their_mean():
    wanted, usual = paths()
    grounds = ("mint", "sand", "sky")

    def several(subject: object, path: torch.Tensor) -> torch.Tensor:
        return torch.stack([latents(subject, path, ground, (index, -index)) for index, ground in enumerate(grounds)])

    found = judge({"whole": several(FIGURE, wanted), "half": several(FIGURE, wanted / 2)}, several(FIGURE, usual), several(OTHER, wanted))
    assert found["whole"].movement > 0.85 > found["half"].movement > 0.2
    assert found["whole"].looks > 0.8


def test_what_previews_cannot_tell_is_none():
    wanted, _ = paths()
    one_frame = latents(FIGURE, wanted)[:, :1]
    assert judge({"photo": one_frame}, one_frame, one_frame) == {"photo": Scores(None, None)}
    same_path = judge({"a": latents(FIGURE, wanted)}, latents(FIGURE, wanted), latents(OTHER, wanted))["a"]
    assert same_path.movement is None and same_path.looks == pytest.approx(1, abs=0.05)
    assert best_of({"a": Scores(None, None)}) is None


def test_embeddings_stand_for_looks_where_they_are_given():
    wanted, usual = paths()
    figure, other = torch.eye(4)[:2]
    embeddings = {"a": figure + other, "identity_only": figure, "motion_only": other}
    embeddings = {name: vector.expand(3, 4) for name, vector in embeddings.items()}
    found = judge({"a": latents(OTHER, wanted)}, latents(FIGURE, usual), latents(OTHER, wanted), embeddings=embeddings)
    assert found["a"].looks == pytest.approx(0.5**0.5) and found["a"].movement == pytest.approx(1)


def test_the_best_keeps_most_of_both():
    scores = {"plain": Scores(0.7, 0.9), "even": Scores(0.75, 0.8), "loud": Scores(3.0, 0.4), "untold": Scores(None, None)}
    assert best_of(scores) == "plain" and best_of(scores, "smaller") == "even"
    assert best_of({"a": Scores(None, 0.5), "b": Scores(None, 0.8)}) == "b"


def test_a_track_does_not_know_the_place_or_the_size_of_latents():
    wanted, _ = paths()
    here, there = latents(FIGURE, 0.5 * wanted), latents(FIGURE, 0.5 * wanted, shift=(4.0, -4.0))
    torch.testing.assert_close(energy_track(here), energy_track(there), rtol=0, atol=0.02)
    larger = here.repeat_interleave(3, -1).repeat_interleave(3, -2)
    torch.testing.assert_close(energy_track(here), energy_track(larger), rtol=0, atol=1e-3)


def test_previews_of_different_shapes_are_refused():
    wanted, _ = paths()
    whole = latents(FIGURE, wanted)
    with pytest.raises(ValueError, match="shapes"):
        judge({"short": whole[:, :4]}, whole, whole)
