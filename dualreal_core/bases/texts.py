"""Prompts of models with masks, pooled texts or two text encoders, as the one matrix (T, X) that a base has for a prompt.

Rows of zeros are padding; the first of them parts two texts. So texts padded with zeros to one length keep their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional


def without_padding(text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """text: (T, X), mask: (T,) -> (number of ones, X)"""
    return text[mask.bool()]


def text_mask(text: torch.Tensor) -> torch.Tensor:
    """text: (B, T, X) -> (B, T), true where there is text."""
    return text.any(dim=-1)


def joined(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Two texts (T, X) and (U, Y) without padding, parted by a row of zeros: (T + 1 + U, max(X, Y))."""
    width = max(first.shape[1], second.shape[1])
    between = first.new_zeros(1, width)
    return torch.cat([functional.pad(first, (0, width - first.shape[1])), between, functional.pad(second, (0, width - second.shape[1]))])


def parted(text: torch.Tensor, widths: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The two texts (B, T, X) and (B, U, Y) of joined ones (B, N, max(X, Y)); T and U are at least 1."""
    both: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for row, is_text in zip(text, text_mask(text), strict=True):
        place = int((~is_text).nonzero()[0]) if not is_text.all() else len(row)
        second = row[place + 1 :]
        both[0].append(row[:place, : widths[0]])
        both[1].append(second[text_mask(second[None])[0], : widths[1]])
    first, second = (torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for part in both)
    return first, second if second.shape[1] else second.new_zeros(len(text), 1, widths[1])


class TextListener:
    """In the place of a DiT, takes its call and keeps the text that it was called with: (B, T, X).

    Args:
        config: the DiT's.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self.config = config
        self.text: torch.Tensor | None = None

    def __call__(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, **others: object
    ) -> tuple[torch.Tensor]:
        self.text = encoder_hidden_states
        return (hidden_states,)
