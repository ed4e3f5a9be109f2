"""Fidelity of movement that does not see appearance: tracks of patch tokens, after the tracklet score of Yatim et al. (CVPR 2024)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

MAX_FRAMES = 32
"""More frames of a clip than this are thinned out, evenly."""
NUM_ANCHORS = 5
"""Tracks start from the tokens of so many frames, evenly spread."""
LAGS = 8
"""Displacements are taken over a clip's eighth: over single frames of a long clip, jitter of the matches would outweigh them."""
TEMPERATURE = 0.1
"""Of the softmax over cosines that finds a token's place in a frame."""
NOISE = 0.4
"""A token that departs from its usual self by less than this share of the spread of all tokens is not moving.

This and the next were chosen on clips of the toy world under a random patch encoder, with and without noise: all 16
motions are told apart, and what is opposite or still scores below 0.1.
"""
QUIET_TRACKS = 0.3
"""Tracks with less than this share of the greatest weight are left out."""
STILLNESS = 0.005
"""Displacements (in picture sides, rms) at which a movement counts as half still."""


def movement_fidelity(video: torch.Tensor, reference: torch.Tensor) -> float | None:
    """How alike two clips move: 1 the same movement, about 0 unrelated, opposite, or moving against still.

    Both clips are thinned to the same number of frames T, the first and last among them: whole clip is held against
    whole clip, whatever their frame rates. With u_i, v_j the displacements of their tracks (`movement_tracks`) and
    p, q the weights of those, the likeness of two tracks is their concordance,

        c_ij = (2 <u_i, v_j> + e) / (|u_i|^2 + |v_j|^2 + e),    e = (number of displacements) * STILLNESS^2,

    which is 1 only for equal displacements (direction, speed and extent), 0 for orthogonal ones or for one that is
    still, -1 for opposite ones. Each track meets the most alike of the other clip, wherever in the picture it is, and

        fidelity = max(0, sum_i p_i max_j c_ij / 2 + sum_j q_j max_i c_ij / 2).

    Args:
        video, reference: (F, h, w, D) patch tokens of an image encoder, F and D may differ between them.

    Returns:
        None where a clip has one frame, which shows no movement.
    """
    num_frames = min(len(video), len(reference), MAX_FRAMES)
    if num_frames < 2:
        return None
    (steps, weights), (other_steps, other_weights) = (
        movement_tracks(tokens[spread_indices(len(tokens), num_frames)]) for tokens in (video, reference)
    )
    floor = steps.shape[1] * STILLNESS**2
    steps, other_steps = steps.flatten(1), other_steps.flatten(1)
    energy = steps.square().sum(1)[:, None] + other_steps.square().sum(1)[None]
    concordance = (2 * steps @ other_steps.T + floor) / (energy + floor)  # (K, K')
    forth = (weights * concordance.amax(1)).sum()
    back = (other_weights * concordance.amax(0)).sum()
    return min(max(float(forth + back) / 2, 0.0), 1.0)


def movement_tracks(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Displacements over an eighth of the clip along tracks of tokens, and the tracks' weights.

    A token of unit length minus the median of its place over time is what moves there: the still background and the
    encoder's position code drop out. Its length beyond a noise floor is the token's salience s. A track follows one
    token of an anchor frame; its place in frame k is the softmax mean of all places q, weighted s_q exp(cos / TEMPERATURE);
    a displacement counts as much as the best cosines at its ends, so that what is hidden or gone stands still.
    A uniform object matches everywhere in itself, and its tracks are then the path of its centre.

    Args:
        tokens: (T, h, w, D)

    Returns:
        (K, T - lag, 2) displacements as (x, y) in picture sides, and (K,) weights (the salience) that sum to 1; one
        track that stands still where nothing moves.
    """
    num_frames, height, width, _ = tokens.shape
    lag = max(1, (num_frames - 1) // LAGS)
    units = functional.normalize(tokens.float().flatten(1, 2), dim=-1)  # (T, N, D)
    spread = float((units - units.mean((0, 1))).square().sum(-1).mean().sqrt())
    change = units - (units.median(0).values - (-units).median(0).values) / 2  # the mean of both middle values, where they are two
    size = change.norm(dim=-1)
    salience = (size - NOISE * spread).clamp(min=0)  # (T, N)
    direction = change / size.clamp(min=max(NOISE * spread, 1e-6))[..., None]

    anchors = spread_indices(num_frames, min(num_frames, NUM_ANCHORS))
    weights = salience[anchors].flatten()
    if spread < 1e-4 or not float(weights.max()) > 0:
        return torch.zeros(1, num_frames - lag, 2, device=tokens.device), torch.ones(1, device=tokens.device)
    is_kept = weights > QUIET_TRACKS * weights.max()
    queries, weights = direction[anchors].flatten(0, 1)[is_kept], weights[is_kept]  # (K, D), (K,)

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([columns / width, rows / height], dim=-1).flatten(0, 1).to(queries)  # (N, 2)
    track, trust = [], []
    for frame, frame_salience in zip(direction, salience, strict=True):
        cosine = queries @ frame.T  # (K, N)
        match = frame_salience * ((cosine - 1) / TEMPERATURE).exp()
        total = match.sum(1, keepdim=True)
        track.append(match @ places / total.clamp(min=1e-30))
        trust.append(torch.where(frame_salience > 0, cosine, 0.0).amax(1).clamp(min=0) * (total[:, 0] > 0))
    track, trust = torch.stack(track, dim=1), torch.stack(trust, dim=1)  # (K, T, 2), (K, T)
    steps = (track[:, lag:] - track[:, :-lag]) * (trust[:, lag:] * trust[:, :-lag])[..., None]
    return steps, weights / weights.sum()


def spread_indices(num_frames: int, num_wanted: int) -> list[int]:
    """Up to `num_wanted` evenly spaced indices of `num_frames`, first and last among them."""
    num_kept = min(num_frames, num_wanted)
    return [math.floor(index * (num_frames - 1) / max(num_kept - 1, 1) + 0.5) for index in range(num_kept)]


def patch_grid(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of an image encoder as a grid: class and register tokens, which come first, are dropped.

    Args:
        tokens: (F, T, D), T = a square number of patches and up to 8 others before them.

    Returns:
        (F, h, w, D)

    Raises:
        ValueError: the patches form no square.
    """
    side = math.isqrt(tokens.shape[1])
    if tokens.shape[1] - side * side > 8:
        raise ValueError(f"{tokens.shape[1]} tokens are no square grid of patches.")
    return tokens[:, tokens.shape[1] - side * side :].unflatten(1, (side, side))
