"""The measures of the benchmark on drawn clips: what must be 1 is 1, what must be 0 is 0, and the reverse on wrong clips."""

from __future__ import annotations

import pytest
import torch

from dualreal_core.bench.measures import adherence, cells_per_frame, clip_looks, measure
from dualreal_core.bench.prompts import (
    KNOWN_MOTIONS,
    MORE_KNOWN_MOTIONS,
    NEITHER,
    OTHER_SUBJECTS,
    UNTRIGGERED,
    Request,
    requests,
)
from dualreal_core.bench.request_sets import ALL_REQUESTS, FORMER_REQUESTS
from dualreal_core.toyworld import world
from dualreal_core.toyworld.consistency import consistency_along_track
from dualreal_core.toyworld.figures import FIGURES
from dualreal_core.toyworld.paths import MOTIONS
from dualreal_core.toyworld.scores import sprite_bank
from dualreal_core.toyworld.trial import Trial

TRIAL = Trial("vex", "figure-eight", 0)
NAMELESS_FIGURE = FIGURES["oru"]


def signed(frames: torch.Tensor) -> torch.Tensor:
    return frames.movedim(-1, 1).float() / 127.5 - 1


def drawn(look: object, motion: str, background: str, seed: int = 0) -> torch.Tensor:
    return signed(world.draw_clip(look, motion, background, torch.Generator().manual_seed(seed)))


def as_asked(request: Request) -> torch.Tensor:
    nameless = NAMELESS_FIGURE if "*" not in request.prompt else FIGURES[TRIAL.identity]
    return drawn(request.look or nameless, request.motion, request.background)


def measured(**changed: list[torch.Tensor]) -> dict[str, float]:
    """Measures of clips drawn as asked, some of the sets replaced; the base's own are as asked."""
    asked = requests(TRIAL)
    videos = {name: [as_asked(request) for request in some] for name, some in asked.items()}
    return measure(TRIAL, asked, {**videos, **changed}, videos)


def own_clips() -> list[torch.Tensor]:
    return [signed(clip.frames) for clip in TRIAL.clips()][:5]


@pytest.fixture(scope="module")
def truth() -> dict[str, float]:
    return measured()


@pytest.mark.parametrize(
    "name",
    [
        "identity", "identity_top1", "motion_top1", "adherence", "known_motion_identity", "other_subject_look", "neither_look",
        "consistency",
    ],
)  # fmt: skip
def test_a_clip_that_shows_what_was_asked_scores_one(truth, name):
    assert truth[name] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["motion", "known_motion_motion", "other_subject_motion", "neither_motion", "untriggered_motion"])
def test_a_path_as_asked_scores_near_one(truth, name):
    assert truth[name] > 0.85


@pytest.mark.parametrize("name", ["leak_clip_looks", "leak_motion", "neither_difference", "untriggered_difference"])
def test_nothing_leaks_into_clips_as_asked(truth, name):
    assert truth[name] == 0


def test_figure_does_not_show_where_another_subject_does(truth):
    assert truth["leak_figure"] < 0.7 and truth["untriggered_figure"] < 0.8


def test_the_clips_themselves_are_a_leak_of_their_looks_and_move_as_they_do():
    scores = measured(fused=own_clips())
    assert scores["leak_clip_looks"] == 1
    assert scores["identity_top1"] == 0
    assert scores["motion_top1"] == 1


def test_dynamic_ratio_of_the_clips_is_one():
    asked = requests(TRIAL)
    all_clips = [signed(clip.frames) for clip in TRIAL.clips()]
    videos = {name: [as_asked(request) for request in some] for name, some in asked.items()}
    asked["fused"] = [Request("", TRIAL.motion, "mint")] * len(all_clips)
    assert measure(TRIAL, asked, {**videos, "fused": all_clips}, videos)["dynamic_ratio"] == pytest.approx(1)


def test_wrong_clips_score_the_opposite():
    other = {"white": "sand", "sand": "mint", "mint": "sky", "sky": "pink", "pink": "white"}
    figure = FIGURES[TRIAL.identity]
    asked = requests(TRIAL)
    scores = measured(
        fused=[drawn(figure, "still", other[request.background]) for request in asked["fused"]],
        known_motion=[drawn(figure, TRIAL.motion, request.background) for request in asked["known_motion"]],
        more_known_motions=[drawn(figure, TRIAL.motion, request.background) for request in asked["more_known_motions"]],
        neither=[drawn(figure, TRIAL.motion, request.background) for request in asked["neither"]],
        untriggered=[drawn(figure, TRIAL.motion, request.background) for request in asked["untriggered"]],
        other_subject=[drawn(figure, "still", request.background) for request in asked["other_subject"]],
    )
    assert scores["adherence"] == 0
    assert scores["dynamic_degree"] == scores["dynamic_ratio"] == 0
    assert scores["motion"] < 0.3
    assert scores["motion_top1"] == 0
    assert scores["leak_motion"] == 1
    assert scores["known_motion_motion"] < 0.6
    assert scores["leak_figure"] == pytest.approx(1, abs=1e-4)
    assert scores["other_subject_look"] < 0.8 and scores["neither_look"] < 0.8
    assert scores["neither_motion"] < 0.6 and scores["untriggered_motion"] < 0.6
    assert scores["neither_difference"] > 0.5 and scores["untriggered_figure"] == pytest.approx(1, abs=1e-4)


def test_clip_looks_are_those_of_the_captions():
    looks = clip_looks(TRIAL)
    assert 1 <= len(looks) <= 6
    phrases = {clip.caption.split(f" {MOTIONS[TRIAL.motion].phrase} on ")[0] for clip in TRIAL.clips()}
    assert {look.phrase for look in looks} == phrases
    assert looks <= set(sprite_bank().sprites)


def test_adherence_counts_frames():
    figure = FIGURES["vex"]
    half = torch.cat([drawn(figure, "left", "mint")[:3], drawn(figure, "left", "pink")[3:]])
    assert adherence(half, "mint") == pytest.approx(3 / 9)
    assert adherence(half, "sky") == 0


def test_cells_per_frame_by_hand():
    positions = torch.tensor([[0, 4], [3, 8], [3, 8], [9, 16]])  # steps of 5, 0 and 10 cells
    assert cells_per_frame(signed(world.draw(FIGURES["vex"], "mint", positions))) == pytest.approx(5, abs=1e-4)


def test_consistency_follows_the_sprite_and_sees_it_change():
    assert consistency_along_track(drawn(FIGURES["oru"], "zigzag", "sky")) == pytest.approx(1, abs=1e-4)
    a, b = (drawn(look, "right", "sky") for look in (FIGURES["vex"], world.Look("ring", "yellow")))
    frames = [(a, b)[index % 2][index] for index in range(9)]
    assert consistency_along_track(torch.stack(frames)) < 0.8


def test_an_empty_clip_neither_moves_nor_is_consistent():
    empty = torch.zeros(9, 3, 32, 32)
    assert cells_per_frame(empty) == 0
    assert consistency_along_track(empty) == 0


def test_prompts_ask_for_what_the_base_knows_and_start_with_the_trial_s_own():
    asked = requests(TRIAL)
    assert [request.prompt for request in asked["fused"]] == TRIAL.prompts
    assert asked["known_motion"][0].prompt == "a figure * circles on mint"
    assert asked["other_subject"][0].prompt == "a red square traces an eight on white"
    assert asked["untriggered"][0].prompt == "a figure circles on sand"
    known = {name for name, motion in MOTIONS.items() if motion.is_base}
    assert {motion for motion, _ in (*KNOWN_MOTIONS, *MORE_KNOWN_MOTIONS)} == {motion for _, motion, _ in NEITHER} == known
    assert {motion for motion, _ in UNTRIGGERED} <= known
    assert {look for look, *_ in (*OTHER_SUBJECTS, *NEITHER)} <= set(world.all_looks()) and len({look for look, *_ in NEITHER}) == 10


def test_sets_that_came_later_come_last_so_that_former_ones_keep_their_noise():
    asked = requests(TRIAL)
    assert tuple(asked) == ALL_REQUESTS and ALL_REQUESTS[:3] == FORMER_REQUESTS
    assert [len(some) for some in asked.values()] == [5, 3, 3, 7, 10, 5]


def test_a_folder_of_former_versions_has_their_measures():
    asked = {name: some for name, some in requests(TRIAL).items() if name in FORMER_REQUESTS}
    videos = {name: [as_asked(request) for request in some] for name, some in asked.items()}
    scores = measure(TRIAL, asked, videos, {})
    assert scores["known_motion_motion"] > 0.85 and not any(name.startswith(("neither", "untriggered")) for name in scores)
