"""Text of the toy world: a frozen random vector for every word, plus one for every pair of neighbours.

The pair vector lets a bag of tokens tell 'red with blue' from 'blue with red'. Any word works, known or new:
the vectors come from a hash of the word, so no vocabulary is stored.
"""

from __future__ import annotations

import hashlib
import re

import torch

from .config import TEXT_DIM

MIN_TOKENS = 16
PAIR_WEIGHT = 0.6


def words_of(prompt: str) -> list[str]:
    """Lower-case words of a prompt; `*` and other signs stand alone."""
    return re.findall(r"[\w'-]+|[^\w\s]", prompt.lower())


def embed_text(prompt: str) -> torch.Tensor:
    """Embedding of a prompt: (T, 128), T = its words, zero-padded to at least 16. The empty prompt is all zeros."""
    return embed_words(words_of(prompt))


def embed_words(words: list[str]) -> torch.Tensor:
    """Embedding of words in their order: (T, 128) as `embed_text`."""
    embedded = torch.zeros(max(len(words), MIN_TOKENS), TEXT_DIM)
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        embedded[index] = _vector(word) + PAIR_WEIGHT * _vector(f"{before} {word}")
    return embedded


def _vector(key: str) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    return torch.randn(TEXT_DIM, generator=torch.Generator().manual_seed(seed))
