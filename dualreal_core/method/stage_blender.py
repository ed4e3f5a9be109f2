"""StageBlender (paper, section 3.3): from denoising stage and content to the weights of both adapters, per block group."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional

from .adapter import zero_init
from .float32_module import Float32Module

Stage = float | torch.Tensor
"""Position in denoising, 0 (noise) to 1: of a whole call, or (B,) of each sample."""


class StageBlender(Float32Module):
    """Predicts `w_identity = scale * share` and `w_motion = scale - w_identity` per sample and group of blocks.

    The time embedding modulates (shift, scale, gate) the max-pooled tokens. The last layer starts at zero, so both
    weights start at `scale / 2`, or on the share schedule, where there is one.

    It computes in float32 whatever the precision around it, and stays so when the pair is cast: where shares may be learned
    to differ by a hundredth, bfloat16 leaves three values.

    Args:
        time_dim: width E of the time embedding.
        token_dim: width C of the tokens entering block 0.
        num_groups: G, groups of consecutive blocks.
        scale: sum of both weights.
        learned_range: how far shares may be learned to differ from where they start, up to 0.5, which is free, as in the paper.
        share_schedule: the identity's shares to start from, at evenly spaced points of denoising; empty as in the paper: even.
        inner_dim: width inside; None as in the paper: E, so that its weights grow with the square of the base's width.
        hidden_dim: width of the last hidden layer.
    """

    def __init__(
        self,
        time_dim: int,
        token_dim: int,
        num_groups: int,
        scale: float = 0.2,
        learned_range: float = 0.5,
        share_schedule: tuple[float, ...] = (),
        inner_dim: int | None = None,
        hidden_dim: int = 128,
    ) -> None:
        super().__init__()
        inner_dim = time_dim if inner_dim is None else inner_dim
        self.modulation = nn.Linear(time_dim, 3 * inner_dim)
        self.tokens_in = nn.Linear(token_dim, inner_dim)
        self.norm = nn.LayerNorm(inner_dim)
        self.expand = nn.Linear(inner_dim, 4 * inner_dim)
        self.contract = nn.Linear(4 * inner_dim, inner_dim)
        self.hidden = nn.Linear(inner_dim, hidden_dim)
        self.out = nn.Linear(hidden_dim, num_groups)
        self.scale = scale
        self.learned_range = learned_range
        self.share_schedule = share_schedule
        zero_init(self.out)

    def forward(self, embedding: torch.Tensor, tokens: list[torch.Tensor], starts: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (B, G, 2), identity first.

        Args:
            embedding: time embedding (B, E).
            tokens: streams of (B, T, C).
            starts: shares (B or 1,) from which the learned ones start (`starts_at`), where they lie; default: those of the middle.
        """
        dtype, kind = self.out.weight.dtype, embedding.device.type
        # pooled before the cast: all tokens in float32 would take gigabytes
        pooled = torch.stack([stream.amax(dim=1).to(dtype) for stream in tokens]).amax(dim=0)  # (B, C)
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            shift, scale, gate = self.modulation(functional.silu(embedding.to(dtype))).chunk(3, dim=1)
            content = self.tokens_in(pooled)
            fused = self.norm(content) * (1 + scale) + shift
            fused = gate * content + self.contract(functional.gelu(self.expand(fused), approximate="tanh"))
            logits = self.out(functional.relu(self.hidden(functional.relu(fused))))
            least = 0.5 - self.learned_range
            share = least + (1 - 2 * least) * torch.sigmoid(logits)  # (B, G)
            if self.share_schedule:
                starts = self.starts_at(None).to(share) if starts is None else starts.to(share.dtype)
                share = (share + starts[:, None] - 0.5).clamp(0, 1)
            identity = self.scale * share
            return torch.stack([identity, self.scale - identity], dim=-1)

    def starts_at(self, stage: Stage | None) -> torch.Tensor:
        """Shares from which the learned ones start at a stage, or at the stages (B,) of samples: (B or 1,), on the host."""
        return share_at(self.share_schedule or (0.5,), 0.5 if stage is None else stage)


def share_at(share_schedule: tuple[float, ...], stage: Stage) -> torch.Tensor:
    """Values at evenly spaced points, read at a stage, linear in between: (B,), or (1,) for the stage of a whole call."""
    values = torch.tensor(share_schedule, dtype=torch.float32)
    place = torch.as_tensor(stage, dtype=torch.float32, device="cpu").reshape(-1).clamp(0, 1) * (len(share_schedule) - 1)
    low = place.long().clamp(max=max(len(share_schedule) - 2, 0))
    high = (low + 1).clamp(max=len(share_schedule) - 1)
    return torch.lerp(values[low], values[high], place - low)
