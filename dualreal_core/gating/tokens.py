"""Tokens of many prompts as one matrix, in a whitened basis of their main directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..method.prompt_gate import LEAST_SQUARE

MOST_TOKENS = 8192
"""Tokens by which the main directions are found."""
PASSES = 3
LEAST_SHARE = 1e-4
"""Of the main direction's second moment: directions with less are taken as having that much, so that noise is not blown up."""


def without_padding(text: torch.Tensor) -> torch.Tensor:
    """Tokens of one prompt without rows of zeros, and with a last row once that is repeated: (T, X) -> (at least 1, X)."""
    repeats = int((text == text[-1]).all(dim=1).flip(0).long().cumprod(0).sum())
    text = text[: len(text) - repeats + 1]
    return text[text.any(dim=1)] if text.any() else text[:1]


class Trimmed(Sequence[torch.Tensor]):
    """Texts (T_i, X) without padding, each made when it is asked for: together they may not fit in memory."""

    def __init__(self, texts: Sequence[torch.Tensor]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> torch.Tensor:
        return without_padding(self.texts[index].detach().cpu())


def unit_tokens(text: torch.Tensor) -> torch.Tensor:
    """Tokens of one prompt (T, X) at an rms of 1, as a gate compares them, in float32; rows of zeros stay zeros."""
    text = text.float()
    return text * text.square().mean(dim=1, keepdim=True).clamp(min=LEAST_SQUARE).rsqrt()


@dataclass(frozen=True)
class RaggedTokens:
    """Attributes:
    values: (M, D) tokens of all prompts, one prompt after the other.
    owners: (M,) which prompt each belongs to.
    counts: (N,) how many each has.
    """

    values: torch.Tensor
    owners: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def joined(cls, prompts: Sequence[torch.Tensor]) -> RaggedTokens:
        """prompts: (T_i, D) each"""
        counts = torch.tensor([len(tokens) for tokens in prompts])
        return cls(torch.cat(list(prompts)), torch.arange(len(counts)).repeat_interleave(counts), counts)

    def chosen(self, prompts: torch.Tensor) -> RaggedTokens:
        """The tokens of some prompts, (n,) indices, in this order; one may occur several times."""
        counts = self.counts[prompts]
        starts = (self.counts.cumsum(0) - self.counts)[prompts]
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        return RaggedTokens(
            self.values[starts.repeat_interleave(counts) + within], torch.arange(len(prompts)).repeat_interleave(counts), counts
        )


def largest(features: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Each prompt's largest value of each feature, at least 0: features (M, R), owners (M,) -> (count, R)."""
    index = owners[:, None].expand_as(features)
    return features.new_zeros(count, features.shape[1]).scatter_reduce(0, index, features, "amax", include_self=True)


def whitened_basis(prompts: Sequence[torch.Tensor], most: int, generator: torch.Generator) -> torch.Tensor:
    """Main directions of tokens, each scaled so that tokens have a second moment of 1 along it.

    prompts: (T_i, X) each -> (X, D), D at most `most`; unit tokens times it are the tokens in the basis.
    """
    lengths = torch.tensor([len(tokens) for tokens in prompts])
    share = min(1.0, MOST_TOKENS / int(lengths.sum()))
    kept = (torch.rand(int(lengths.sum()), generator=generator) < share).split(lengths.tolist())
    tokens = torch.cat([unit_tokens(text[own]) for text, own in zip(prompts, kept, strict=True)])
    count, width = tokens.shape
    if width <= most:
        values, directions = torch.linalg.eigh(tokens.T @ tokens / count)
    else:  # subspace iteration from random directions, as the second moment itself would have width * width numbers
        directions = torch.linalg.qr(torch.randn(width, most, generator=generator))[0]
        for _ in range(PASSES):
            directions = torch.linalg.qr(tokens.T @ (tokens @ directions))[0]
        projected = tokens @ directions
        values, rotation = torch.linalg.eigh(projected.T @ projected / count)
        directions = directions @ rotation
    return directions / values.clamp(min=float(values.max()) * LEAST_SHARE).sqrt()
