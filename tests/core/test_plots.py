"""Plots: sizes, what is drawn in which colour, and the inputs at the edge of what there can be."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dualreal_core.errors import InputError
from dualreal_core.plots import blend_map, contact_sheet, curves, loss_curves, save
from dualreal_core.plots.curves import nice_ticks, robust_range, running_mean
from dualreal_core.plots.heat_map import share_colour
from dualreal_core.plots.typography import BACKGROUND, PANEL, ROLE_COLOURS, SMALL_SIZE, TEXT_SIZE, printable, text_width, wrap

RED, GREEN = (255, 0, 0), (0, 255, 0)


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly that colour."""
    return int((np.asarray(image) == np.array(colour, dtype=np.uint8)).all(axis=-1).sum())


def video(num_frames: int, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """One colour: (F, 3, H, W)."""
    levels = torch.tensor(colour, dtype=torch.float32) / 127.5 - 1
    return levels[None, :, None, None].expand(num_frames, 3, *size).clone()


def records(role: str, losses: list[float]) -> list[dict]:
    return [{"step": step, "role": role, "loss": loss} for step, loss in enumerate(losses, start=1)]


def blend(identity: torch.Tensor, scale: float = 0.2) -> torch.Tensor:
    """identity: (S, G) shares -> (S, G, 2)"""
    return torch.stack([identity * scale, (1 - identity) * scale], dim=-1)


@pytest.mark.parametrize(("num_frames", "columns", "num_shown"), [(9, 9, 9), (33, 9, 9), (4, 9, 4), (1, 9, 1), (5, 1, 1)])
def test_sheet_shows_frames(num_frames, columns, num_shown):
    assert count(contact_sheet([("row", "", video(num_frames))], columns), RED) == num_shown * 96 * 96


def test_sheet_spreads_frames_from_first_to_last():
    clip = video(17)
    clip[0], clip[16], clip[8] = video(3, GREEN)
    assert count(contact_sheet([("row", "", clip)], 3), GREEN) == 3 * 96 * 96


def test_sheet_enlarges_without_smoothing():
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16).expand(1, 3, 32, 32)
    sheet = np.asarray(contact_sheet([("", "", board)]))
    frame = sheet[24:-24, -24 - 96 : -24]
    assert set(np.unique(frame)) == {0, 255}
    assert (frame[::3, ::3] == frame[2::3, 2::3]).all()


@pytest.mark.parametrize(("size", "shown"), [((480, 832), (96, 166)), ((64, 64), (128, 128)), ((16, 8), (96, 48)), ((2, 2000), (1, 240))])
def test_sheet_frame_sizes(size, shown):
    assert count(contact_sheet([("", "", video(1, size=size))]), RED) == shown[0] * shown[1]


def test_sheet_keeps_long_labels_off_the_frames():
    rows = [
        ("a very long label " * 12 + "x" * 80, "identity 0.93  motion 0.88 " + "and so on " * 20, video(2)),
        ("short", "", video(2, GREEN)),
    ]
    sheet = contact_sheet(rows)
    assert count(sheet, RED) == count(sheet, GREEN) == 2 * 96 * 96


def test_sheet_colours_scores():
    plain, scored = contact_sheet([("a", "seed 3", video(1))]), contact_sheet([("a", "identity 0.93  motion 0.88", video(1))])
    for colour in ROLE_COLOURS.values():
        assert count(plain, colour) == 0 < count(scored, colour)


def test_sheet_takes_values_that_are_no_levels():
    wild = torch.tensor([math.nan, math.inf, -math.inf, 7.0]).repeat(1, 3, 8, 2)
    assert contact_sheet([("", "", wild)]).size[1] == 24 + 96 + 24


@pytest.mark.parametrize(
    ("rows", "columns"),
    [([], 9), ([("a", "", torch.zeros(1, 3, 8, 8))], 0), ([("a", "", torch.zeros(0, 3, 8, 8))], 9), ([("a", "", torch.zeros(3, 8, 8))], 9)],
)
def test_sheet_refuses(rows, columns):
    with pytest.raises(ValueError, match=r"at least one"):
        contact_sheet(rows, columns)


@pytest.mark.parametrize("size", [SMALL_SIZE, TEXT_SIZE])
@pytest.mark.parametrize("is_bold", [False, True])
def test_wrap(size, is_bold):
    text = "identity 0.93  motion 0.88 words and " + "x" * 60
    lines = wrap(text, size, 150, is_bold)
    assert all(text_width(line, size, is_bold) <= 150 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert any("identity 0.93" in line for line in lines)


@pytest.mark.parametrize("text", ["DualReal, learned blend", "identity 0.93  motion 0.88", "identity 0.93  motion 0.88 seed 3"])
def test_wrap_keeps_what_fits(text):
    assert len(wrap(text, TEXT_SIZE, text_width(text, TEXT_SIZE, is_bold=True), is_bold=True)) == 1


def test_printable():
    assert printable("Café – “dog”\n字") == 'Cafe - "dog" ?'


@pytest.mark.parametrize("num_steps", [1, 2, 3, 40, 2000])
@pytest.mark.parametrize("roles", [["identity"], ["motion"], ["identity", "motion"]])
def test_curves_draw_the_roles_there_are(roles, num_steps):
    image = loss_curves([record for role in roles for record in records(role, [0.5 + 0.1 * math.sin(n) for n in range(num_steps)])], "Loss")
    assert image.size[0] == 960
    for role, colour in ROLE_COLOURS.items():
        assert (count(image, colour) > 0) == (role in roles)


@pytest.mark.parametrize(
    "losses", [[0.0] * 5, [0.3] * 5, [1e-9, 2e-9], [1e12, 2e12, 3e12], [-1.0, 1.0], [math.nan, 0.5, math.inf], [1.0, 1.0, 1e30]]
)
def test_curves_take_any_losses(losses):
    assert count(loss_curves(records("motion", losses), "Loss"), ROLE_COLOURS["motion"]) > 0


def test_of_long_runs_not_every_point_is_drawn(monkeypatch):
    """But every one counts, and the line lies where it would lie: all but some hundredths of its pixels are the same."""
    num_drawn = [0]
    for shape in ("ellipse", "polygon"):
        plain = getattr(ImageDraw.ImageDraw, shape)

        def counted(self, *arguments, plain=plain, **options):
            num_drawn[0] += 1
            return plain(self, *arguments, **options)

        monkeypatch.setattr(ImageDraw.ImageDraw, shape, counted)
    noise, images = random.Random(0), {}
    long = records("motion", [1 / (1 + step / 2000) + 0.05 * noise.random() + (1e3 if step % 3 == 0 else 0) for step in range(20_000)])
    for name, most in (("bounded", curves.MOST_DRAWN), ("whole", 10**6)):
        num_drawn[0] = 0
        monkeypatch.setattr(curves, "MOST_DRAWN", most)
        images[name] = np.asarray(loss_curves(long, "Loss", {"motion": [(step, 0.5) for step in range(0, 20_000, 2)]}))
        assert (num_drawn[0] < 15_000) == (name == "bounded")
    line = {name: (image == np.array(ROLE_COLOURS["motion"], dtype=np.uint8)).all(axis=-1) for name, image in images.items()}
    assert (line["bounded"] != line["whole"]).sum() < 0.05 * line["whole"].sum()


def test_curves_show_evaluations_as_rings():
    steps = records("identity", [0.5] * 100)
    plain = loss_curves(steps, "Loss")
    for evaluated in ({}, {"motion": [(50, 0.5)]}, {"identity": [(50, math.nan)]}):
        assert loss_curves(steps, "Loss", evaluated).tobytes() == plain.tobytes()
    ringed = loss_curves(steps, "Loss", {"identity": [(50, 0.4), (100, 0.6)]})
    assert count(ringed, ROLE_COLOURS["identity"]) > count(plain, ROLE_COLOURS["identity"])
    far = loss_curves(steps, "Loss", {"identity": [(50, 0.9)]})
    assert far.tobytes() != plain.tobytes() and far.size == plain.size, "the axis reaches what was evaluated"


@pytest.mark.parametrize("nothing", [[], records("motion", [math.nan])])
def test_curves_of_nothing(nothing):
    image = loss_curves(nothing, "Loss")
    assert image.size[0] == 960
    assert not any(count(image, colour) for colour in ROLE_COLOURS.values())


def test_outliers_do_not_stretch_the_axis():
    losses = np.concatenate([np.linspace(1.0, 0.2, 200), [1e6, 1e4]])
    assert robust_range(losses) == (0.0, 1.0)


@pytest.mark.parametrize("losses", [[0.5, 1e6], [0.5, 0.6, 1e6], [0.5, 0.6, 0.55, 1e6], [0.5, 1e6, 0.6, 0.5, 0.55]])
def test_one_outlier_among_few_does_not_stretch_the_axis(losses):
    assert robust_range(np.array(losses))[1] < 1


@pytest.mark.parametrize("losses", [[0.2, 0.9], [1.0, 0.1], [1.0, 0.5, 0.2, 0.1]])
def test_few_ordinary_losses_stay_on_the_axis(losses):
    low, high = robust_range(np.array(losses))
    assert low <= min(losses) and high == max(losses)


def test_a_rare_role_of_another_size_is_no_outlier():
    image = loss_curves(records("identity", [0.1] * 100) + records("motion", [50.0, 51.0, 52.0]), "Loss")
    plot = image.crop((0, 90, *image.size))
    assert count(plot, ROLE_COLOURS["motion"]) > 50  # solid: dots on the axis; triangles outside it are translucent


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.3, 0.33), (-2, 5), (0, 1e-9), (1, 12345), (7e8, 7.3e8)])
def test_nice_ticks(low, high):
    ticks = nice_ticks(low, high, 5)
    assert 3 <= len(ticks) <= 8
    assert ticks[0] <= low + 1e-6 * (high - low) and ticks[-1] >= high - 1e-6 * (high - low)


def test_running_mean():
    flat = running_mean(np.full(100, 3.0))
    assert np.allclose(flat, 3.0)
    assert np.array_equal(running_mean(np.array([1.0, 5.0])), [1.0, 5.0])
    noise = np.random.default_rng(0).normal(size=1000)
    assert running_mean(noise).std() < 0.25 * noise.std()


@pytest.mark.parametrize(("num_steps", "num_groups"), [(1, 1), (1, 7), (2, 2), (12, 7), (50, 42), (1500, 3)])
def test_map_is_filled(num_steps, num_groups):
    image = blend_map(blend(torch.ones(num_steps, num_groups)), 0.2, "Blend")
    assert count(image, ROLE_COLOURS["identity"]) > 200 * 30 * num_groups * 0.9
    assert image.size[0] <= 1500


def test_map_colours():
    assert share_colour(0.0) == ROLE_COLOURS["motion"]
    assert share_colour(1.0) == ROLE_COLOURS["identity"]
    assert share_colour(0.5) not in (BACKGROUND, *ROLE_COLOURS.values())


def test_map_axes():
    """Steps run to the right, groups downwards."""
    shares = torch.zeros(4, 3)
    shares[3, 0] = 1.0
    pixels = np.asarray(blend_map(blend(shares), 0.2, "Blend"))
    cells = (pixels[:, : 94 + 4 * 65] == np.array(ROLE_COLOURS["motion"], dtype=np.uint8)).all(-1)
    identity = (pixels[:, : 94 + 4 * 65] == np.array(ROLE_COLOURS["identity"], dtype=np.uint8)).all(-1)
    assert np.nonzero(identity)[1].min() > np.nonzero(cells[np.nonzero(identity)[0].min()])[0].max()
    assert np.nonzero(identity)[0].max() < np.nonzero(cells)[0].max() - 60


@pytest.mark.parametrize(
    ("stages", "end", "left", "right"),
    [([0.0, 0.25, 0.5, 0.75], 1.0, 0.0, 1.0), ([0.0, 0.1, 0.3, 0.4], 0.5, 0.0, 0.5), ([0.5, 0.6, 0.7, 0.9], 1.0, 0.5, 1.0)],
)
def test_map_shows_stages_where_they_are(stages, end, left, right):
    """A part of a run fills that part of the map; a step reaches from its stage to the next one's."""
    shares = torch.zeros(4, 1)
    shares[1] = 1.0
    pixels = np.asarray(blend_map(blend(shares), 0.2, "Blend", stages, end))[:, 94 : 94 + 4 * 64]
    columns = {
        role: np.nonzero((pixels == np.array(ROLE_COLOURS[role], dtype=np.uint8)).all(-1))[1] / (4 * 64) for role in ("motion", "identity")
    }
    filled = np.concatenate(list(columns.values()))
    assert (filled.min(), filled.max()) == pytest.approx((left, right), abs=0.02)
    assert (columns["identity"].min(), columns["identity"].max()) == pytest.approx((stages[1], stages[2]), abs=0.02)


@pytest.mark.parametrize("num_steps", [1, 2, 50, 1500])
def test_map_of_steps_that_hardly_move_still_shows_them(num_steps):
    """As at the end of schedules that gather there."""
    stages = (0.99 + 0.01 * torch.linspace(0, 1, num_steps)).tolist()
    seen = [count(blend_map(blend(share * torch.ones(num_steps, 2)), 0.2, "Blend", stages), ROLE_COLOURS["identity"]) for share in (0, 1)]
    assert seen[1] - seen[0] >= 2 * 2 * 33


def test_map_of_sides_that_are_off():
    table = blend(torch.ones(3, 2))
    table[1] = 0.0
    whole, part, none = (blend_map(one, 0.2, "Blend") for one in (blend(torch.ones(3, 2)), table, torch.zeros(3, 2, 2)))
    identity = ROLE_COLOURS["identity"]
    assert whole.size == none.size and count(whole, identity) > count(part, identity) > count(none, identity)
    assert count(part, PANEL) > 2 * 50 * 30 and count(none, PANEL) > 3 * 2 * 50 * 30


def test_map_names_another_sum():
    table = blend(torch.full((3, 2), 0.5), scale=0.1)
    assert np.asarray(blend_map(table, 0.1, "Blend")).tolist() != np.asarray(blend_map(table, 0.2, "Blend")).tolist()


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 3), (0, 2, 2)])
def test_map_refuses(shape):
    with pytest.raises(ValueError, match=r"\(steps, groups, 2\)"):
        blend_map(torch.zeros(shape), 0.2, "Blend")


def test_long_titles_fit():
    for image in (blend_map(blend(torch.zeros(2, 2)), 0.2, "a long title " * 20), loss_curves([], "a long title " * 30)):
        pixels = np.asarray(image)
        assert (pixels[:, -12:] == 255).all()


def test_save(tmp_path):
    image = contact_sheet([("row", "", video(2))])
    save(tmp_path / "new" / "sheet.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), np.asarray(image))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("name", ["sheet", "sheet.txt"])
def test_save_refuses_other_formats(tmp_path, name):
    with pytest.raises(InputError, match=r"ends in \.png"):
        save(tmp_path / name, contact_sheet([("row", "", video(1))]))
    assert not list(tmp_path.iterdir())
