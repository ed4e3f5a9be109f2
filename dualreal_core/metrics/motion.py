"""Fidelity of movement that does not see appearance, from tracks of an image encoder's patch tokens.

That tracklets say it, each held against all of the other video, follows Yatim et al. (CVPR 2024); tracks and likeness are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch.nn import functional

MAX_FRAMES = 32
"""More frames of a video than this are thinned out, evenly."""
MIN_REFERENCE_FRAMES = 9
"""References of shorter videos keep so many frames: fewer do not tell motions apart."""
NUM_ANCHORS = 5
"""Tracks start from the tokens of so many frames, evenly spread."""
LAGS = 8
"""Displacements are taken over a video's eighth: over single frames of a long one, jitter of the matches would outweigh them."""
TEMPERATURE = 0.1
"""Of the softmax over cosines that finds a token in the next frame."""
REACH = 0.3
"""Picture sides (deviation of a Gaussian) within which it is looked for."""
NOISE = 0.4
"""A token that departs from its usual self by less than this share of the spread of all tokens is not moving.

This, the next and BANDWIDTH were chosen on videos of the toy world and of moved textures under a random patch encoder, with
and without noise: all 16 motions are told apart (alike 0.5 to 1, unlike 0.03 on average), opposite pans score below 0.2.
"""
QUIET_TRACKS = 0.3
"""Tracks with less than this share of the greatest salience are left out."""
BANDWIDTH = 0.2
"""Of the likeness of two tracks, in units of the energy of the movement."""
STILLNESS = 0.005
"""Displacements (in picture sides, rms) that are no movement yet."""


def movement_fidelity(video: torch.Tensor, reference: torch.Tensor) -> float | None:
    """How alike two videos move: 1 the same movement, about 0 unrelated, opposite, or moving against still.

    Both videos are thinned to the same number of frames, the first and last among them: whole is held against whole,
    whatever their frame rates. With u_i, v_j the displacements of their tracks (`movement_tracks`), p, q the weights
    of those, and E the mean energy of both movements,

        S(u, v) = sum_ij p_i q_j exp(-|u_i - v_j|^2 / 2 h),    h = BANDWIDTH * E + (number of displacements) * STILLNESS^2,
        E = (sum_i p_i |u_i|^2 + sum_j q_j |v_j|^2) / 2,       fidelity = S(u, v) / sqrt(S(u, u) S(v, v)),

    the cosine of the two videos' distributions of tracks. Direction, path in time and extent count, the place in the
    picture does not. Single things that move alike but a fifth less or more far score 0.9, half as far 0.4, across
    or still below 0.01.

    Args:
        video, reference: (F, h, w, D) patch tokens of an image encoder, F and D may differ between them.

    Returns:
        None where a video has one frame, which shows no movement.
    """
    num_frames = min(len(video), len(reference), MAX_FRAMES)
    if num_frames < 2:
        return None
    (steps, weights), (other_steps, other_weights) = (
        movement_tracks(tokens[spread_indices(len(tokens), num_frames)]) for tokens in (video, reference)
    )
    stillness = steps.shape[1] * STILLNESS**2
    steps, other_steps = steps.flatten(1), other_steps.flatten(1)
    energy = (weights @ steps.square().sum(1) + other_weights @ other_steps.square().sum(1)) / 2
    bandwidth = BANDWIDTH * energy + stillness

    def likeness(u: torch.Tensor, p: torch.Tensor, v: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return p @ (-_square_distance(u, v) / (2 * bandwidth)).exp() @ q

    own = likeness(steps, weights, steps, weights) * likeness(other_steps, other_weights, other_steps, other_weights)
    return min(float(likeness(steps, weights, other_steps, other_weights) / own.sqrt()), 1.0)


def movement_tracks(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Displacements over an eighth of the video along tracks of tokens, and the tracks' weights.

    A token of unit length minus the median of its place over time is what moves there: the still background and the
    encoder's position code drop out. Its length beyond a noise floor is the token's salience s. From frame to frame each
    token is displaced to the mean of the places q that it matches, weighted s_q exp(cos / TEMPERATURE) and by nearness
    (REACH), and as much as the best cosine says, so that what is hidden or gone stands still. Tracks start from the
    salient tokens of the anchor frames and follow, forth and back, the displacements of the tokens around them.
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
    anchors = spread_indices(num_frames, min(num_frames, NUM_ANCHORS))
    loudest = salience[anchors].max()
    if spread < 1e-4 or loudest <= 0:
        return torch.zeros(1, num_frames - lag, 2, device=tokens.device), torch.ones(1, device=tokens.device)

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([columns / width, rows / height], dim=-1).flatten(0, 1).to(units)  # (N, 2)
    direction = change / size.clamp(min=NOISE * spread)[..., None]
    forth, back = _displacements(direction, salience, places)
    tracks, weights = [], []
    for anchor in anchors:
        is_kept = salience[anchor] > QUIET_TRACKS * loudest
        track = {anchor: places[is_kept]}
        for frame in range(anchor, num_frames - 1):
            track[frame + 1] = _advance(track[frame], forth[frame], salience[frame], places)
        for frame in range(anchor, 0, -1):
            track[frame - 1] = _advance(track[frame], back[frame - 1], salience[frame], places)
        tracks.append(torch.stack([track[frame] for frame in range(num_frames)], dim=1))
        weights.append(salience[anchor][is_kept])
    points, weight = torch.cat(tracks), torch.cat(weights)  # (K, T, 2), (K,)
    return points[:, lag:] - points[:, :-lag], weight / weight.sum()


def spread_indices(num_frames: int, num_wanted: int) -> list[int]:
    """Up to `num_wanted` evenly spaced indices of `num_frames`, first and last among them."""
    num_kept = min(num_frames, num_wanted)
    return [math.floor(index * (num_frames - 1) / max(num_kept - 1, 1) + 0.5) for index in range(num_kept)]


def thinned(frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """At most `num_frames` frames, evenly spread, first and last among them; frames: (F, ...)."""
    return frames if len(frames) <= num_frames else frames[spread_indices(len(frames), num_frames)]


def num_reference_frames(video_lengths: Iterable[int]) -> int:
    """Frames that are kept of each reference video, for videos of these many frames."""
    return min(max([MIN_REFERENCE_FRAMES, *video_lengths]), MAX_FRAMES)


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


def _displacements(direction: torch.Tensor, salience: torch.Tensor, places: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of every token to the next frame, and of every token of that back to this one: T - 1 fields (N, 2) each.

    Args:
        direction: (T, N, D); salience: (T, N); places: (N, 2)
    """
    nearness = (-_square_distance(places, places) / (2 * REACH**2)).exp()

    def field(cosine: torch.Tensor, aim: torch.Tensor) -> torch.Tensor:
        match = nearness * ((cosine - 1) / TEMPERATURE).exp() * aim  # (N, N)
        total = match.sum(1, keepdim=True)
        trust = torch.where(aim > 0, cosine, 0.0).amax(1, keepdim=True).clamp(min=0) * (total > 0)
        return (match @ places / total.clamp(min=1e-30) - places) * trust

    cosines = [now @ after.T for now, after in pairwise(direction)]
    forth = [field(cosine, aim) for cosine, aim in zip(cosines, salience[1:], strict=True)]
    back = [field(cosine.T, aim) for cosine, aim in zip(cosines, salience[:-1], strict=True)]
    return forth, back


def _advance(points: torch.Tensor, field: torch.Tensor, salience: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Points (K, 2) moved by the field (N, 2) of the salient tokens about them, within a token's breadth or so."""
    weight = (-_square_distance(points, places) * len(places) / 2).exp() * salience
    return points + weight @ field / (weight.sum(1, keepdim=True) + 1e-9)  # where nothing is salient, points rest


def _square_distance(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(K, D), (K', D) -> (K, K'); exact for equal points, where cdist's product form is not."""
    return torch.cdist(u, v, compute_mode="donot_use_mm_for_euclid_dist").square()
