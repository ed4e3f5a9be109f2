"""Scores of frames and of flow against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_encoders import FRAME, spot_clip, spot_flow, straight

from dualreal_core.metrics.flow import (
    dynamic_degree_per_pair,
    flow_fidelity,
    flow_field,
    flow_smoothness_per_frame,
    is_moving,
    middle_frame,
    sampled_frames,
    warp,
)
from dualreal_core.metrics.motion import num_reference_frames
from dualreal_core.metrics.pixel import flickering_per_pair, mean_smoothness_per_frame

EXACT = 1e-6
HEIGHT, WIDTH = FRAME
STILL = [(24, 20)] * 5


def close(value: float) -> object:
    return pytest.approx(value, abs=EXACT)


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 3, 4, 6)


def test_flickering_in_closed_form():
    assert flickering_per_pair(grey(0, 51, 255)) == [close(0.8), close(0.2)]
    assert flickering_per_pair(grey(255, 0)) == [0.0]
    frames = grey(10, 10)
    frames[1, 0, 0, 0] = 61  # one value of 72
    assert flickering_per_pair(frames) == [close(1 - 51 / 255 / 72)]
    assert flickering_per_pair(frames[:1]) == []


def test_mean_smoothness_in_closed_form():
    assert mean_smoothness_per_frame(grey(10, 30, 50, 40)) == [close(1), close(1 - 15 / 255)]
    assert mean_smoothness_per_frame(grey(0, 255, 1)) == [close(1 - 254.5 / 255)]
    assert mean_smoothness_per_frame(grey(0, 1)) == []
    moved = spot_clip(straight(3, 2, 0))
    changed = 8 * 8 * 255 / 2  # half light on four columns either side, of which two are lit and two dark in the frame itself
    assert mean_smoothness_per_frame(moved) == [close(1 - changed / 255 / (HEIGHT * WIDTH))]


def test_warp_in_closed_form():
    ramp = torch.arange(5, dtype=torch.float64).expand(1, 1, 3, 5)
    flow = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
    flow[:, 0] = 1.25
    assert warp(ramp, flow)[0, 0, 1].tolist() == [close(value) for value in (1.25, 2.25, 3.25, 4, 4)]
    column = torch.arange(3, dtype=torch.float64).reshape(1, 1, 3, 1).expand(1, 1, 3, 5)
    flow = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
    flow[:, 1] = -0.5
    assert warp(column, flow)[0, 0, :, 2].tolist() == [close(0), close(0.5), close(1.5)]


def test_middle_frame_of_an_even_movement_is_exact():
    first, middle, last = spot_clip(straight(3, 3, -2))
    there = spot_flow(first[None], last[None])
    assert there[0, :, 0, 0].tolist() == [close(6), close(-4)]
    between = middle_frame(first[None], last[None], there, -there)
    assert (between[0] - middle).abs().max() < 255 * EXACT


def test_flow_smoothness_in_closed_form():
    path = straight(7, 2, 1)
    assert flow_smoothness_per_frame(spot_clip(path), spot_flow) == [close(1)] * 5
    path[3] = (path[3][0] + 1, path[3][1])  # a pixel too far: a column of 8 px is missing, one too many
    scores = flow_smoothness_per_frame(spot_clip(path), spot_flow)
    assert scores[2] == close(1 - 2 * 8 / (HEIGHT * WIDTH))
    assert scores[0] == close(1)
    assert scores[4] == close(1)
    assert scores[1] == close(1 - 8 / (HEIGHT * WIDTH))  # half a pixel between its neighbours: half light on two columns
    assert flow_smoothness_per_frame(spot_clip(path[:2]), spot_flow) == []


def test_smoothness_along_the_flow_does_not_punish_movement():
    frames = spot_clip(straight(6, 4, 2))
    assert min(flow_smoothness_per_frame(frames, spot_flow)) > max(mean_smoothness_per_frame(frames))


@pytest.mark.parametrize(("num_fast", "degree"), [(10, 5.0), (5, 3.0), (0, 1.0), (40, 5.0)])
def test_dynamic_degree_is_the_mean_of_the_largest_twentieth(num_fast, degree):
    def network(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        flow = torch.zeros(len(first), 2, 200)
        flow[:, 0] = -1
        flow[:, :, 200 - num_fast :] = torch.tensor([3.0, -4.0])[:, None]
        return flow.reshape(-1, 2, 10, 20)

    assert dynamic_degree_per_pair(torch.zeros(7, 3, 10, 20, dtype=torch.uint8), network) == [close(degree)] * 6


def test_dynamic_degree_of_a_few_pixels_counts_one():
    flow = torch.zeros(1, 2, 2, 2)
    flow[0, :, 1, 1] = torch.tensor([0.6, 0.8])
    frames = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    assert dynamic_degree_per_pair(frames, lambda first, second: flow) == [close(1)]
    assert dynamic_degree_per_pair(frames[:1], lambda first, second: flow) == []


@pytest.mark.parametrize(
    ("fps", "num_frames", "kept"),
    [(8, 5, [0, 1, 2, 3, 4]), (24, 7, [0, 3, 6]), (30, 9, [0, 4, 8]), (5, 3, [0, 1, 2]), (60, 4, [0, 3]), (24, 1, [0])],
)
def test_frames_are_sampled_at_eight_per_second(fps, num_frames, kept):
    assert sampled_frames(torch.arange(num_frames).reshape(-1, 1, 1, 1), fps).flatten().tolist() == kept


@pytest.mark.parametrize(
    ("degrees", "size", "moves"),
    [
        ([6.1] * 4 + [0] * 11, (256, 400), True),  # 16 frames: 4 pairs needed
        ([6.1] * 3 + [0] * 12, (256, 400), False),
        ([6.0] * 15, (256, 400), False),
        ([6.1] * 15, (512, 512), False),  # twice the size, twice the threshold
        ([12.1] * 15, (600, 512), True),
    ],
)
def test_moving_as_vbench_decides_it(degrees, size, moves):
    assert is_moving(degrees, size) is moves


def likeness(video: torch.Tensor, reference: torch.Tensor) -> float:
    num_frames = min(len(video), len(reference))
    return flow_fidelity(flow_field(video, num_frames, spot_flow), flow_field(reference, num_frames, spot_flow))


def test_flow_field_is_in_picture_sides_of_the_whole_video():
    field = flow_field(spot_clip(straight(7, 2, -1)), 5, spot_flow)  # frames 0, 2, 3, 5, 6
    assert field.shape == (4, 2, 8, 8)
    assert field[:, 0].flatten().tolist() == [close(12 / WIDTH)] * 256
    assert field[:, 1].flatten().tolist() == [close(-6 / HEIGHT)] * 256


def test_flow_fidelity_in_closed_form():
    right = spot_clip(straight(5, 2, 0))
    for path, fidelity in [
        (straight(5, 2, 0, (4, 8)), 1),
        (straight(5, 4, 0), 1),
        (straight(5, -2, 0), -1),
        (straight(5, 0, 2), 0),
        (STILL, 0),
        # a picture side is 64 px across and 48 px down
        (straight(5, 2, 2), (2 / 64) / ((2 / 64) ** 2 + (2 / 48) ** 2) ** 0.5),
    ]:
        assert likeness(spot_clip(path), right) == close(fidelity)
    assert likeness(spot_clip(STILL), spot_clip(STILL)) == 1


def test_flow_fidelity_holds_whole_videos_of_any_size_against_each_other():
    fine = spot_clip(straight(9, 1, 0))
    large = spot_clip(straight(5, 4, 0), side=16, size=(96, 128))
    assert likeness(fine, large) == close(1)
    assert likeness(fine[:7], large) == close(1), "7 frames do not thin to 5 evenly"


def test_flow_fidelity_sees_when_things_move():
    there_and_back = [(16, 20), (20, 20), (24, 20), (20, 20), (16, 20)]
    assert likeness(spot_clip(there_and_back), spot_clip(straight(5, 4, 0, (16, 20)))) == close(0)


@pytest.mark.parametrize(("lengths", "kept"), [([5], 9), ([12, 17], 17), ([80], 32), ([], 9)])
def test_references_keep_as_many_frames_as_the_longest_video(lengths, kept):
    assert num_reference_frames(lengths) == kept


@pytest.mark.parametrize(
    ("size", "batches"), [((48, 64), [4, 4, 1]), ((360, 640), [4, 4, 1]), ((720, 640), [2, 2, 2, 2, 1]), ((1080, 1920), [1] * 9)]
)
def test_large_frames_go_through_the_flow_network_in_smaller_batches(size, batches):
    seen = []

    def network(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        seen.append(len(first))
        return first[:, :2, :2, :2].float()

    frames = torch.arange(10, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, *size)
    degrees = dynamic_degree_per_pair(frames, network)
    assert seen == batches
    assert degrees == [close(index * 2**0.5) for index in range(9)]
