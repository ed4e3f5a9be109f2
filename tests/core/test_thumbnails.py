"""Small pictures of frames keep their colours and shapes; sheets hold all of them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from dualreal_core.plots.thumbnails import GAP, HEIGHT, WIDTH, rows_of, thumbnail, thumbnail_frames, thumbnail_sheet


@pytest.mark.parametrize(("height", "width"), [(32, 32), (480, 832), (2000, 300), (90, 2000), (96, 240)])
def test_a_thumbnail_fits_and_keeps_its_shape(height: int, width: int) -> None:
    picture = thumbnail(torch.rand(3, height, width) * 2 - 1)
    assert picture.height <= HEIGHT and picture.width <= WIDTH
    assert picture.height / picture.width == pytest.approx(height / width, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (13, 20), (32, 32), (95, 96), (480, 832), (2000, 300), (90, 2000)])
def test_frames_of_thumbnails_look_the_same(height: int, width: int) -> None:
    frames = torch.rand(2, 3, height, width) * 2 - 1
    small = thumbnail_frames(frames)
    assert small.shape[-2] <= min(height, HEIGHT) and small.shape[-1] <= min(width, WIDTH)
    assert [thumbnail(frame).tobytes() for frame in frames] == [thumbnail(frame).tobytes() for frame in small]


def test_small_frames_are_enlarged_in_whole_pixels() -> None:
    frame = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).expand(3, 2, 2)
    assert {level for _, level in thumbnail(frame).convert("L").getcolors()} == {0, 255}


def test_a_sheet_holds_every_picture_of_its_rows() -> None:
    pictures = [Image.new("RGB", (10 + index, 8), (index, 0, 0)) for index in range(7)]
    rows = rows_of(pictures, 3)
    assert [len(row) for row in rows] == [3, 3, 1]
    sheet = thumbnail_sheet(rows)
    assert sheet.height == GAP + 3 * (8 + GAP)
    assert {colour[0] for _, colour in sheet.getcolors(1 << 20) if colour[1] == 0} == set(range(7))
