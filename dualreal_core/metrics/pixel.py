"""Scores from the frames alone: temporal flickering, and how well a frame lies between its neighbours."""

from __future__ import annotations

import torch

PIXEL_RANGE = 255.0


def flickering_per_pair(frames: torch.Tensor) -> list[float]:
    """(255 - mean |x_t+1 - x_t|) / 255 of each frame and the next; 1 is a still video.

    The mean is the temporal flickering of VBench (Huang et al., CVPR 2024), without its choice of static videos beforehand:
    a video that moves scores less. Exact: differences are summed as whole numbers.

    Args:
        frames: (F, 3, H, W) uint8

    Returns:
        F - 1 values in 0..1.
    """
    return [_likeness(frames[index].int(), frames[index + 1].int()) for index in range(len(frames) - 1)]


def mean_smoothness_per_frame(frames: torch.Tensor) -> list[float]:
    """(255 - mean |x_t - (x_t-1 + x_t+1) / 2|) / 255 of each frame but the first and the last; 1 is a still or evenly fading video.

    The protocol of VBench's motion smoothness with the plain mean in the place of its interpolation network: an edge that moves
    evenly is an error here, so it favours slow videos. `flow.flow_smoothness_per_frame` follows the movement.

    Args:
        frames: (F, 3, H, W) uint8

    Returns:
        F - 2 values in 0..1, none for fewer than three frames.
    """
    scores = []
    for index in range(1, len(frames) - 1):
        before, middle, after = frames[index - 1 : index + 2].int()
        scores.append(_likeness(2 * middle, before + after, scale=2))
    return scores


def _likeness(first: torch.Tensor, second: torch.Tensor, scale: int = 1) -> float:
    """1 minus the mean absolute difference; first, second: whole numbers up to scale * 255."""
    difference = int((first - second).abs().sum(dtype=torch.int64))
    return 1 - difference / (first.numel() * scale * PIXEL_RANGE)
