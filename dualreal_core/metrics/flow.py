"""Scores from optical flow: dynamic degree, smoothness along the movement, likeness of two videos' flow.

A flow network is any function (first, second: (N, 3, H, W) uint8) -> (N, 2, H, W), displacements (x, y) in px from first to second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch.nn import functional

from .motion import spread_indices
from .pixel import PIXEL_RANGE

FlowNetwork = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

MAX_BATCH, BATCH_PIXELS = 4, 4 * 360 * 640
"""Frame pairs that the network sees at once, fewer where they are larger than 640x360 px: RAFT's memory grows with the pixels."""
LARGEST_SHARE = 0.05
"""Of the pixels, whose flow the dynamic degree is the mean of."""
SAMPLED_FPS = 8
"""Dynamic degree compares frames about an eighth of a second apart."""
MOVING_THRESHOLD, THRESHOLD_SIDE = 6.0, 256
"""Dynamic degree (px) above which VBench counts a frame pair as moving, for a short side of THRESHOLD_SIDE px."""
MOVING_PAIRS, PER_FRAMES = 4, 16
"""A video moves where so many pairs per so many frames do."""
FIDELITY_FRAMES, FIDELITY_CELLS = 16, 8
"""Flow fidelity thins videos to so many frames, and the flow to so many cells a side."""
STILLNESS = 0.02
"""Root mean square of a video's flow (picture sides in the video's whole time) below which it counts as still."""


def sampled_frames(frames: torch.Tensor, fps: float) -> torch.Tensor:
    """Every round(fps / 8)-th frame from the first, two at least where there are two, as VBench does for its dynamic degree.

    Args:
        frames: (F, 3, H, W)
    """
    return frames[:: max(1, min(round(fps / SAMPLED_FPS), len(frames) - 1))]


def dynamic_degree_per_pair(frames: torch.Tensor, network: FlowNetwork) -> list[float]:
    """Mean length (px) of the largest 5 % of the flow vectors between each frame and the next, as VBench takes it.

    Args:
        frames: (F, 3, H, W) uint8, already thinned by `sampled_frames`.

    Returns:
        F - 1 values, 0 or more.
    """
    degrees = []
    for flow in _flows(frames[:-1], frames[1:], network):
        lengths = flow.double().norm(dim=1).flatten(1)  # (N, H W)
        num_largest = max(1, int(lengths.shape[1] * LARGEST_SHARE))
        degrees += lengths.topk(num_largest, dim=1).values.mean(1).tolist()
    return degrees


def is_moving(degrees: list[float], size: tuple[int, int]) -> bool:
    """VBench's own dynamic degree of one video, a yes or no: enough frame pairs move far enough.

    Args:
        degrees: of `dynamic_degree_per_pair`.
        size: (height, width) of the frames, in px.
    """
    threshold = MOVING_THRESHOLD * min(size) / THRESHOLD_SIDE
    num_needed = round(MOVING_PAIRS * (len(degrees) + 1) / PER_FRAMES)
    return sum(degree > threshold for degree in degrees) >= num_needed


def flow_smoothness_per_frame(frames: torch.Tensor, network: FlowNetwork) -> list[float]:
    """(255 - mean |x_t - m_t|) / 255 of each frame but the first and the last, m_t made of its neighbours along their flow.

    The protocol of VBench's motion smoothness, with the linear interpolation of `middle_frame` in the place of its AMT network
    and with every frame predicted, where VBench predicts every other: values do not compare with VBench's.

    Args:
        frames: (F, 3, H, W) uint8

    Returns:
        F - 2 values in 0..1, none for fewer than three frames.
    """
    scores, begin = [], 1
    forth = _flows(frames[:-2], frames[2:], network)
    back = _flows(frames[2:], frames[:-2], network)
    for there, again in zip(forth, back, strict=True):
        end = begin + len(there)
        predicted = middle_frame(frames[begin - 1 : end - 1], frames[begin + 1 : end + 1], there, again)
        error = (frames[begin:end].double() - predicted).abs().flatten(1).mean(1)
        scores += (1 - error / PIXEL_RANGE).tolist()
        begin = end
    return scores


def middle_frame(before: torch.Tensor, after: torch.Tensor, there: torch.Tensor, again: torch.Tensor) -> torch.Tensor:
    """The frame half way between two, where everything moves evenly and in a straight line.

    With F01 the flow from `before` to `after` and F10 the flow back, the flows from the middle are F_t0 = (F10 - F01) / 4 and
    F_t1 = -F_t0 (Jiang et al., Super SloMo, CVPR 2018, equation 4 at t = 1/2); the result is the mean of both frames warped
    back along them, without that paper's refinement and visibility networks.

    Args:
        before, after: (N, 3, H, W)
        there, again: (N, 2, H, W) px

    Returns:
        (N, 3, H, W) float64
    """
    to_before = (again.double() - there.double()) / 4
    return (warp(before.double(), to_before) + warp(after.double(), -to_before)) / 2


def warp(frames: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """frames at p + flow(p), bilinear; beyond the border its own pixels go on.

    Args:
        frames: (N, C, H, W); flow: (N, 2, H, W) px, of the same dtype.
    """
    height, width = frames.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]).to(flow) + flow  # (N, 2, H, W)
    scale = torch.tensor([max(width - 1, 1), max(height - 1, 1)]).to(flow).reshape(1, 2, 1, 1)
    return functional.grid_sample(frames, (2 * places / scale - 1).movedim(1, -1), padding_mode="border", align_corners=True)


def flow_fidelity(video: torch.Tensor, reference: torch.Tensor) -> float:
    """Cosine of two videos' flow fields: 1 the same movement at the same places, 0 unrelated or moving against still, -1 opposite.

    Unlike `motion.movement_fidelity` the place in the picture counts and how far things move does not. Two still videos score 1.
    Appearance does not enter; our own definition.

    Args:
        video, reference: (N - 1, 2, cells, cells) of `flow_field`, of the same N.
    """
    moves = [float(field.square().sum(1).mean().sqrt()) > STILLNESS for field in (video, reference)]
    if not all(moves):
        return 0.0 if any(moves) else 1.0
    return float(functional.cosine_similarity(video.flatten(), reference.flatten(), dim=0))


def flow_field(frames: torch.Tensor, num_frames: int, network: FlowNetwork) -> torch.Tensor:
    """Where and when a video moves: flow from each of evenly spread frames to the next, averaged over 8x8 cells.

    In picture sides, divided by the share of the video that lies between the two frames, so that frame rates do not matter.

    Args:
        frames: (F, 3, H, W) uint8
        num_frames: N, from 2 to F.

    Returns:
        (N - 1, 2, cells, cells) float64
    """
    indices = spread_indices(len(frames), num_frames)
    shares = torch.tensor([after - before for before, after in pairwise(indices)], dtype=torch.float64) / (len(frames) - 1)
    sides = torch.tensor([frames.shape[3], frames.shape[2]]).reshape(1, 2, 1, 1)
    flows = _flows(frames[indices[:-1]], frames[indices[1:]], network)
    cells = torch.cat([functional.adaptive_avg_pool2d(flow.double() / sides, FIDELITY_CELLS) for flow in flows])
    return cells / shares[:, None, None, None]


def _flows(first: torch.Tensor, second: torch.Tensor, network: FlowNetwork) -> Iterator[torch.Tensor]:
    batch = max(1, min(MAX_BATCH, BATCH_PIXELS // (first.shape[2] * first.shape[3])))
    for begin in range(0, len(first), batch):
        yield network(first[begin : begin + batch], second[begin : begin + batch])
