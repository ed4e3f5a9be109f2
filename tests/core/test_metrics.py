"""Metrics: closed forms by hand, what movement is blind to and what not, references of the toy world, and the table."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dualreal_core.errors import InputError
from dualreal_core.metrics.embedding import consistency_per_pair, identity_per_frame
from dualreal_core.metrics.features import Models, References, VideoFeatures
from dualreal_core.metrics.motion import BANDWIDTH, STILLNESS, movement_fidelity, movement_tracks, patch_grid, spread_indices
from dualreal_core.metrics.scores import VideoScores, measure
from dualreal_core.metrics.toyworld_metrics import TOYWORLD_METRICS, ToyworldReferences, ToyworldVideo, find_nearest, to_cells
from dualreal_core.plots import score_table
from dualreal_core.plots.table import shown_value
from dualreal_core.plots.typography import INK, ROLE_COLOURS
from dualreal_core.toyworld import world
from dualreal_core.toyworld.consistency import consistency_along_track, consistency_at_best_place
from dualreal_core.toyworld.figures import FIGURES
from dualreal_core.toyworld.scores import sprite_bank
from dualreal_core.toyworld.trial import Trial

EXACT = 1e-6
GRID = 15


def close(value: float) -> object:
    return pytest.approx(value, abs=EXACT)


def spot(columns: list[int], row: int = 7, dim: int = 4, kind: int = 1) -> torch.Tensor:
    """One token of a kind that moves over a plain background: (F, 15, 15, dim)."""
    tokens = torch.zeros(len(columns), GRID, GRID, dim)
    tokens[..., 0] = 1
    for frame, column in zip(tokens, columns, strict=True):
        frame[row, column] = torch.eye(dim)[kind]
    return tokens


def texture(seed: int, size: int) -> torch.Tensor:
    """(size, size, 3) in [0, 1]"""
    coarse = torch.rand(1, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0].movedim(0, -1)


def moving_patch(path: list[tuple[int, int]], seed: int, size: int = 16) -> torch.Tensor:
    """A textured patch that moves over a textured background, 64x64 pixels: (F, 64, 64, 3)."""
    frames = (0.3 * texture(seed, 64)).repeat(len(path), 1, 1, 1)
    for frame, (x, y) in zip(frames, path, strict=True):
        frame[y : y + size, x : x + size] = 0.5 + 0.5 * texture(seed + 1, size)
    return frames


def encode(frames: torch.Tensor, patch: int = 4, dim: int = 48) -> torch.Tensor:
    """A patch encoder of random weights, with a position code and a common part as real ones have: (F, h, w, dim)."""
    generator = torch.Generator().manual_seed(5)
    patches = torch.nn.functional.unfold(frames.movedim(-1, 1), 3 * patch, padding=patch, stride=patch).transpose(1, 2)
    weight = torch.randn(patches.shape[-1], dim, generator=generator) / math.sqrt(patches.shape[-1])
    tokens = torch.tanh(2 * (patches - 0.5) @ weight) + 0.5
    tokens = tokens + 0.3 * torch.randn(1, *tokens.shape[1:], generator=generator)
    return tokens.unflatten(1, (frames.shape[1] // patch, -1))


RIGHT = [(4 + 4 * k, 20) for k in range(9)]
LEFT = [(x, 28) for x, _ in reversed(RIGHT)]
DOWN = [(24, 4 + 4 * k) for k in range(9)]
STILL = [(20, 20)] * 9


def test_identity_is_mean_cosine_with_references():
    frames, references = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]), torch.tensor([[5.0, 0.0], [1.0, 1.0]])
    half = math.sqrt(0.5)
    assert identity_per_frame(frames, references).tolist() == [close((1 + half) / 2), close(half / 2), close(-(1 + half) / 2)]


def test_consistency_is_cosine_of_neighbours():
    frames = torch.tensor([[1.0, 0.0], [3.0, 4.0], [6.0, 8.0], [-4.0, 3.0]])
    assert consistency_per_pair(frames).tolist() == [close(0.6), close(1.0), close(0.0)]
    assert consistency_per_pair(frames[:1]).tolist() == []


@pytest.mark.parametrize(("num_tokens", "side"), [(257, 16), (256, 16), (261, 16), (50, 7), (2, 1)])
def test_grid_drops_tokens_before_the_patches(num_tokens, side):
    tokens = torch.arange(num_tokens).float()[None, :, None]
    grid = patch_grid(tokens)
    assert grid.shape == (1, side, side, 1)
    assert grid[0, -1, -1] == num_tokens - 1
    assert grid[0, 0, 0] == num_tokens - side * side


def test_grid_refuses_what_is_no_square():
    with pytest.raises(ValueError, match="240 tokens"):
        patch_grid(torch.zeros(1, 240, 2))


@pytest.mark.parametrize(
    ("num_frames", "num_wanted", "indices"), [(9, 5, [0, 2, 4, 6, 8]), (4, 9, [0, 1, 2, 3]), (7, 1, [0]), (4, 2, [0, 3])]
)
def test_spread_keeps_first_and_last(num_frames, num_wanted, indices):
    assert spread_indices(num_frames, num_wanted) == indices


def test_tracks_follow_a_spot_exactly():
    steps, weights = movement_tracks(spot([0, 1, 3, 6, 10, 11, 12, 13, 14]))
    moved = torch.tensor([1, 2, 3, 4, 1, 1, 1, 1]) / GRID
    assert torch.allclose(steps[..., 0], moved.expand(len(steps), -1), atol=EXACT)
    assert steps[..., 1].abs().max() < EXACT
    assert float(weights.sum()) == close(1)


def test_fidelity_in_closed_form():
    right, left = spot(list(range(3, 12))), spot(list(range(11, 2, -1)))
    fast, still = spot([0, 2, 4, 6, 8, 10, 12, 14, 14]), spot([7] * 9)
    floor, right_energy, fast_energy = 8 * STILLNESS**2, 8 / GRID**2, 7 * 4 / GRID**2

    def likeness(distance: float, energy: float) -> float:
        return math.exp(-distance / (2 * (BANDWIDTH * energy + floor)))

    assert movement_fidelity(right, right) == close(1)
    assert movement_fidelity(right, spot(list(range(3, 12)), row=2, kind=3)) == close(1)
    assert movement_fidelity(right, left) == close(likeness(4 * right_energy, right_energy))
    assert movement_fidelity(right, still) == close(likeness(right_energy, right_energy / 2))
    assert movement_fidelity(right, fast) == close(likeness(8 / GRID**2, (right_energy + fast_energy) / 2))
    assert movement_fidelity(still, spot([3] * 4, kind=2)) == 1
    assert movement_fidelity(spot([7]), right) is None


def test_fidelity_holds_whole_clips_against_each_other():
    path = [round(12 * k / 48) for k in range(49)]
    assert movement_fidelity(spot(path), spot([path[index] for index in spread_indices(49, 9)])) == close(1)


def test_fidelity_is_blind_to_texture():
    clips = {"right": RIGHT, "left": LEFT, "down": DOWN, "still": STILL}
    videos = {name: encode(moving_patch(path, seed=10)) for name, path in clips.items()}
    references = {name: encode(moving_patch(path, seed=20)) for name, path in clips.items()}
    for name, video in videos.items():
        for other, reference in references.items():
            fidelity = movement_fidelity(video, reference)
            assert fidelity > 0.9 if name == other else fidelity < 0.1, (name, other, fidelity)


def test_fidelity_of_a_moving_camera():
    def pan(seed: int, dx: int, dy: int) -> torch.Tensor:
        scene = texture(seed, 128)
        return encode(torch.stack([scene[32 + dy * k : 96 + dy * k, 32 + dx * k : 96 + dx * k] for k in range(9)]))

    ways = [(3, 0), (-3, 0), (0, 3), (0, 0)]
    table = torch.tensor([[movement_fidelity(pan(1, *way), pan(2, *other)) for other in ways] for way in ways])
    assert table.diag().min() > 0.9
    assert table[~torch.eye(4, dtype=torch.bool)].max() < 0.2


def test_fidelity_tells_motions_of_the_toy_world_apart():
    names = ["zigzag", "figure-eight", "spiral", "box", "hook", "swoop"]
    videos = [[encode(clip.frames / 255, patch=2) for clip in Trial("vex", name).clips()[:2]] for name in names]
    table = torch.tensor([[movement_fidelity(video, reference) for _, reference in videos] for video, _ in videos])
    assert (table.argmax(0) == torch.arange(len(names))).all()
    assert table.diag().min() > 0.5
    assert table[~torch.eye(len(names), dtype=torch.bool)].mean() < 0.1


def encoded(embeddings: torch.Tensor, tokens: torch.Tensor) -> VideoFeatures:
    """A video of black frames of which an encoder has said this."""
    encoder = SimpleNamespace(embed=lambda frames: embeddings, tokens=lambda frames: tokens, has_text=False)
    return VideoFeatures(Models(encoder), torch.zeros(len(embeddings), 3, 4, 4, dtype=torch.uint8))


def test_scores_of_what_an_encoder_says():
    right, left = spot(list(range(3, 12))), spot(list(range(11, 2, -1)))
    video = encoded(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), right)
    one_frame = encoded(torch.tensor([[1.0, 0.0]]), right[:1])
    shown = [encoded(torch.zeros(len(tokens), 2), tokens) for tokens in (right, left, left[:1])]
    references = References(Models(SimpleNamespace(embed=lambda photo: photo)), [torch.tensor([[1.0, 0.0]])], shown)
    first, second = measure(video, references), measure(one_frame, references)
    assert (first.scores["clip_i"], first.scores["temporal_consistency"]) == (close(0.5), close(0.0))
    assert first.curves["clip_i"] == [close(1), close(0)]
    assert first.curves["motion_fidelity"] == [close(1), pytest.approx(0, abs=1e-3)], "a reference of one frame shows no motion"
    assert first.scores["motion_fidelity"] == close(sum(first.curves["motion_fidelity"]) / 2)
    assert second.scores["clip_i"] == close(1)
    for name in ("motion_fidelity", "temporal_consistency", "temporal_flickering"):
        assert second.scores[name] is None
        assert second.not_measured[name] == "the video has 1 frame and 2 are needed"


def test_what_an_encoder_takes_is_not_what_the_frames_are_measured_by():
    images = (torch.tensor([0.0, 0.2, 0.0]).reshape(3, 1, 1, 1)).expand(3, 4, 4, 3)
    seen = []
    models = Models(SimpleNamespace(embed=lambda frames: seen.append(frames) or torch.ones(len(frames), 2), has_text=False))
    result = measure(VideoFeatures.of_images(models, images), References(models, [], []))
    assert (result.scores["temporal_flickering"], result.scores["mean_smoothness"]) == (close(0.8), close(0.8))
    assert result.scores["temporal_consistency"] == close(1)
    assert len(seen) == 1 and seen[0] is images


def test_consistency_at_the_best_place_in_closed_form():
    frames = torch.zeros(4, 3, 32, 32)
    frames[0, 0, 2:14, 2:14] = 0.5
    frames[1, :2, 18:30, 20:32] = 0.7
    frames[2, :2, 0:12, 0:12] = 0.7
    assert consistency_at_best_place(frames) == [close(math.sqrt(0.5)), close(1), 0.0]
    assert consistency_at_best_place(frames[:1]) == []


@pytest.fixture(scope="module")
def trial() -> dict[str, list[torch.Tensor]]:
    held_out = Trial("vex", "zigzag")
    generator = torch.Generator().manual_seed(3)
    fused = world.draw_clip(FIGURES["vex"], "zigzag", "mint", generator) / 255
    other = world.draw_clip(FIGURES["nim"], "box", "sand", generator) / 255
    return {
        "videos": [fused, other],
        "identity": [photo.frames / 255 for photo in held_out.photos()],
        "motions": [clip.frames / 255 for clip in held_out.clips()],
    }


def evaluate(videos: list[torch.Tensor], identity: list[torch.Tensor], motions: list[torch.Tensor]) -> list[VideoScores]:
    features = [ToyworldVideo(video, f"video {index}") for index, video in enumerate(videos, start=1)]
    references = ToyworldReferences(identity, motions)
    return [measure(video, references, TOYWORLD_METRICS) for video in features]


def test_toyworld_scores(trial):
    references = ToyworldReferences(trial["identity"], trial["motions"])
    assert (sprite_bank().names[references.sprite], references.motion) == ("vex", "zigzag")
    fused, other, one_frame = evaluate([*trial["videos"], trial["videos"][0][:1]], trial["identity"], trial["motions"])
    assert fused.scores["sprite_likeness"] == close(1)
    assert fused.scores["sprite_consistency"] == close(1)
    assert fused.scores["path_likeness"] > 0.9
    assert other.scores["sprite_likeness"] < 0.8
    assert other.scores["path_likeness"] < 0.2
    assert len(fused.curves["sprite_likeness"]) == 9
    assert len(fused.curves["sprite_consistency"]) == 8
    assert (one_frame.scores["path_likeness"], one_frame.scores["sprite_consistency"]) == (None, None)
    nearest = [find_nearest(ToyworldVideo(video, "it"), references) for video in (*trial["videos"], trial["videos"][0][:1])]
    assert [list(names.values()) for names in nearest] == [["vex", "zigzag"], ["nim", "box"], ["vex", None]]


def test_both_consistencies_are_one_for_a_steady_sprite_and_differ_in_noise(trial):
    """Noise moves the centre of the track off the sprite, and not the best place."""
    steady = to_cells(trial["videos"][0], "it", [32])
    noisy = steady + 0.2 * torch.randn(steady.shape, generator=torch.Generator().manual_seed(0))
    assert consistency_along_track(steady) == close(1)
    assert consistency_at_best_place(steady) == [close(1)] * 8
    assert consistency_along_track(noisy) < 0.6 < 0.85 < min(consistency_at_best_place(noisy))


def test_toyworld_scores_of_enlarged_pictures(trial):
    def enlarge(images: list[torch.Tensor], factor: int) -> list[torch.Tensor]:
        return [image.repeat_interleave(factor, 1).repeat_interleave(factor, 2) for image in images]

    plain = evaluate(trial["videos"], trial["identity"][:2], trial["motions"])
    assert evaluate(enlarge(trial["videos"], 7), enlarge(trial["identity"][:2], 2), enlarge(trial["motions"], 3)) == plain


def test_lossy_pictures_are_brought_back_and_smoothed_ones_refused(trial):
    clip = trial["videos"][0]
    large = clip.repeat_interleave(4, 1).repeat_interleave(4, 2)
    lossy = (large + 0.02 * torch.randn(large.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (to_cells(lossy, "it", [32]) - to_cells(clip, "it", [32])).abs().max() < 0.3
    for mode in ("bilinear", "bicubic"):
        smooth = torch.nn.functional.interpolate(clip.movedim(-1, 1), scale_factor=4, mode=mode).movedim(1, -1)
        with pytest.raises(InputError, match="it was enlarged with smoothing"):
            to_cells(smooth, "it", [32])


@pytest.mark.parametrize("cells", [32, 48])
def test_cells_of_an_ambiguous_size_are_found(trial, cells):
    picture = trial["identity"][0] if cells == 48 else trial["videos"][0]
    large = picture.repeat_interleave(96 // cells, 1).repeat_interleave(96 // cells, 2)
    assert torch.equal(to_cells(large, "it", [48, 32]), to_cells(picture, "it", [cells]))


def changed(trial, **parts) -> dict[str, list[torch.Tensor]]:
    return {**trial, **parts}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"videos": [torch.zeros(9, 48, 80, 3)]}, "video 1 is 80x48 pixels"),
        (lambda t: {"videos": [torch.rand(9, 64, 64, 3)]}, "enlarged with smoothing"),
        (lambda t: {"identity": [torch.rand(1, 48, 48, 3)]}, "identity reference 1 shows no known figure"),
        (lambda t: {"identity": [t["identity"][0], t["videos"][1][:1]]}, "2 different figures"),
        (lambda t: {"motions": [torch.full((9, 32, 32, 3), 0.5)]}, "perform no known motion"),
        (lambda t: {"motions": [clip[:1] for clip in t["motions"]]}, "perform no known motion"),
        (lambda t: {"motions": [torch.zeros(9, 64, 32, 3)]}, "motion reference 1 is 32x64 pixels"),
    ],
)
def test_what_is_not_of_the_toy_world_is_refused(trial, change, words):
    parts = changed(trial, **change(trial))
    with pytest.raises(InputError, match=words) as caught:
        evaluate(parts["videos"], parts["identity"], parts["motions"])
    assert "\n" not in str(caught.value)


def count(image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == np.array(colour, dtype=np.uint8)).all(axis=-1).sum())


def row(label: str, identity: float | None, motion: float | None) -> tuple[str, str, dict[str, float | None]]:
    return (label, "9 frames", {"identity": identity, "motion": motion})


def test_table_sets_off_the_best():
    blue, orange = ROLE_COLOURS["identity"], ROLE_COLOURS["motion"]
    even = score_table([row("a", 0.5, 0.5), row("b", 0.5004, 0.5)], "t")
    better = score_table([row("a", 0.5, 0.5), row("b", 0.8, 0.5)], "t")
    single = score_table([row("a", 0.9, 0.9)], "t")
    bar = round(0.8 * 120) * 6
    assert count(better, blue) >= count(even, blue) + bar
    assert count(better, orange) == count(even, orange) == count(single, orange)


def test_table_shows_undefined_scores_as_a_dash():
    assert [shown_value(value) for value in (None, -0.0001, 0.98765, 1)] == ["-", "0.000", "0.988", "1.000"]
    image = score_table([row("a", None, None), row("b", 0.4, -0.2)], "t")
    assert count(image, INK) > 0


def test_table_grows_with_rows_and_wraps_labels():
    short, long = score_table([row("a", 1.0, 1.0)], "t"), score_table([row("a very long name " * 9, 1.0, 1.0), row("b", 0.0, 0.0)], "t")
    assert long.height > short.height
    assert long.width - short.width == 260 - 140


@pytest.mark.parametrize("rows", [[], [("a", "", {})], [row("a", 1, 1), ("b", "", {"identity": 1.0})]])
def test_table_refuses_rows_that_do_not_match(rows):
    with pytest.raises(ValueError, match="same headings"):
        score_table(rows, "t")
