"""Gradients of the fused kernel by which MiniMax-H3 normalises and turns queries and keys: the kernel itself has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.quant_ops
import torch

NAME = "rms_rope_split_half"


@contextmanager
def with_gradients() -> Iterator[None]:
    """Inside, autograd goes back through the kernel; what it computes stays as it is."""
    kitchen = comfy.quant_ops.ck
    fused = getattr(kitchen, NAME, None)
    if fused is None:
        yield
        return

    class Fused(torch.autograd.Function):
        """Forward by the kernel, backward by the same in single steps."""

        @staticmethod
        def forward(ctx, q, k, freqs, q_scale, k_scale, epsilon, rot_dim):
            ctx.save_for_backward(q, k, freqs, q_scale, k_scale)
            ctx.sizes = epsilon, rot_dim
            return fused(q, k, freqs, q_scale, k_scale, epsilon=epsilon, rot_dim=rot_dim)

        @staticmethod
        def backward(ctx, *gradients):
            q, k, freqs, *scales = ctx.saved_tensors
            found = []
            for tokens, scale, gradient in zip((q, k), scales, gradients, strict=True):
                with torch.enable_grad():
                    given = tokens.detach().float().requires_grad_()
                    turned = norm_and_turn(given, freqs.float(), scale.float(), *ctx.sizes)
                found.append(torch.autograd.grad(turned, given, gradient.float())[0].to(tokens.dtype))
            return *found, None, None, None, None, None

    def call(q, k, freqs_cis, q_scale, k_scale=None, epsilon=1e-6, rot_dim=0):
        return Fused.apply(q, k, freqs_cis, q_scale, q_scale if k_scale is None else k_scale, epsilon, rot_dim)

    setattr(kitchen, NAME, call)
    try:
        yield
    finally:
        setattr(kitchen, NAME, fused)


def norm_and_turn(tokens: torch.Tensor, turns: torch.Tensor, scale: torch.Tensor, epsilon: float, rot_dim: int) -> torch.Tensor:
    """RMS norm of each head, and a rotary embedding of its first `rot_dim` values (0: of all), of which halves are paired.

    tokens: (B, T, heads, D); turns: (1, T, 1, rot_dim / 2, 2, 2); scale: (D,).
    """
    normed = tokens * torch.rsqrt(tokens.square().mean(-1, keepdim=True) + epsilon) * scale
    turned, kept = normed.split([rot_dim or normed.shape[-1], normed.shape[-1] - (rot_dim or normed.shape[-1])], dim=-1)
    pairs = torch.stack(turned.chunk(2, dim=-1), dim=-1)  # (B, T, heads, rot_dim / 2, 2)
    pairs = (turns * pairs[..., None, :]).sum(-1)
    return torch.cat([*pairs.unbind(-1), kept], dim=-1)
