"""What each method does to a weight, in float64 and from the method's own definition; nothing here is of the pack.

W is (out, in); every function gives W' - W. Sources: LoRA (2106.09685), rsLoRA (2312.03732), DoRA (2402.09353), LyCORIS (2309.14859) and
its modules, OFT (2306.07280), BOFT (2311.06243), GLoRA (2306.07967), IA3 (2205.05638), and the tuners of peft.
"""

from __future__ import annotations

import math

import torch

Matrix = torch.Tensor


def low_rank(up: Matrix, down: Matrix, scale: float = 1.0) -> Matrix:
    """LoRA: scale * up @ down; up: (out, R), down: (R, in)."""
    return scale * (up @ down)


def kronecker(w1: Matrix, w2: Matrix, scale: float = 1.0) -> Matrix:
    """LoKr: w1: (a, b), w2: (c, d) -> (a c, b d)."""
    return scale * torch.kron(w1, w2)


def hadamard(w1_a: Matrix, w1_b: Matrix, w2_a: Matrix, w2_b: Matrix, scale: float = 1.0) -> Matrix:
    """LoHa: scale * (w1_a @ w1_b) * (w2_a @ w2_b)."""
    return scale * (w1_a @ w1_b) * (w2_a @ w2_b)


def decomposed(weight: Matrix, change: Matrix, magnitude: Matrix) -> Matrix:
    """DoRA: m * (W + change) / |W + change| - W, the norm over what m has one number of: rows (out,) or (out, 1), columns (1, in)."""
    moved = weight + change
    if magnitude.ndim == 1 or magnitude.shape[1] == 1:
        return magnitude.reshape(-1, 1) * moved / moved.norm(dim=1, keepdim=True) - weight
    return magnitude * moved / moved.norm(dim=0, keepdim=True) - weight


def rotation(blocks: Matrix, limit: float = 0.0) -> Matrix:
    """Cayley: (I + Q)(I - Q)^-1 of Q = B - B^T, which is shortened to a norm of `limit` over all blocks where it is longer; (..., n, n)."""
    skew = blocks - blocks.transpose(-1, -2)
    norm = skew.norm()
    if limit > 0 and norm > limit:
        skew = skew * (limit / norm)
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype)
    return (eye + skew) @ torch.linalg.inv(eye - skew)


def orthogonal_rows(weight: Matrix, blocks: Matrix, constraint: float = 0.0, rescale: Matrix | None = None) -> Matrix:
    """OFT of kohya and LyCORIS: each run of rows becomes R^T of itself. blocks: (k, n, n), k n = out; rescale: (out, 1)."""
    turned = rotation(blocks, constraint * weight.shape[0]).transpose(1, 2) @ weight.reshape(*blocks.shape[:2], -1)
    turned = turned.reshape(weight.shape)
    return (turned if rescale is None else rescale * turned) - weight


def butterfly(weight: Matrix, blocks: Matrix) -> Matrix:
    """BOFT of LyCORIS: factors R_i on rows taken at a stride that doubles. blocks: (m, k, n, n), k n = out."""
    rotations, out = rotation(blocks), weight.shape[0]
    made, size = weight, blocks.shape[-1]
    for level, factors in enumerate(rotations):
        stride = 2**level * (size // 2)
        order = torch.arange(out).reshape(-1, 2, stride).transpose(1, 2).reshape(-1)
        mixed = (factors @ made[order].reshape(len(factors), size, -1)).reshape(weight.shape)
        made = torch.empty_like(mixed)
        made[order] = mixed
    return made - weight


def orthogonal_columns(weight: Matrix, vectors: Matrix, divisor: float = 1.0, num_terms: int | None = 5) -> Matrix:
    """OFT of peft: each run of columns becomes itself times R^T, R by the Cayley-Neumann series or, of no terms, exactly.

    vectors: (k, n (n - 1) / 2), the upper triangles of Q, k n = in.
    """
    size = round((1 + math.sqrt(1 + 8 * vectors.shape[1])) / 2)
    skew = torch.zeros(len(vectors), size, size, dtype=weight.dtype)
    rows, columns = torch.triu_indices(size, size, 1)
    skew[:, rows, columns] = vectors / divisor
    skew = skew - skew.transpose(1, 2)
    eye = torch.eye(size, dtype=weight.dtype)
    if num_terms is None:
        turned = (eye - skew) @ torch.linalg.inv(eye + skew)
    else:
        powers = [eye.expand_as(skew)]
        for _ in range(num_terms - 1):
            powers.append(powers[-1] @ skew)
        turned = powers[0] + 2 * sum(powers[1:-1]) + powers[-1]
    runs = weight.reshape(weight.shape[0], len(vectors), size)
    return torch.einsum("okc,knc->okn", runs, turned).reshape(weight.shape) - weight


def generalized(weight: Matrix, a1: Matrix, a2: Matrix, b1: Matrix, b2: Matrix, scale: float = 1.0) -> Matrix:
    """GLoRA: scale * (W a1 a2 + b1 b2)."""
    return scale * (weight @ a1 @ a2 + b1 @ b2)


def amplified(weight: Matrix, factors: Matrix) -> Matrix:
    """IA3: W * factors, of rows (out, 1) or columns (1, in)."""
    return weight * factors
