"""Fits a prompt gate to labelled texts: directions of token space whose maxima over a prompt tell which sides it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from ..method.prompt_gate import MARGIN, NUM_FEATURES, PromptGate
from .tokens import RaggedTokens, Trimmed, largest, unit_tokens, whitened_basis

MOST_DIRECTIONS = 256
STEPS = 400
BATCH = 128
LEARNING_RATE = 0.03
WEIGHT_DECAY = 0.05
SHARPNESS = 4.0
"""Factor on logits in the loss: they are to differ by some margins, no more."""
DROPOUT = 0.1
"""Share of tokens left out; of prompts that name a side, where a token may be what names it, a third of that."""
FOREIGN_TOKENS = 4
"""So many tokens of other prompts, and as many of none, join those of each: words that no example has."""
NOISE = 0.2
"""Of each number of a token in the whitened basis, in standard deviations."""
HELD_OUT = 0.2
"""Share of the wordings that nothing is fitted to."""
LEAN = 0.5
"""Where a gate is half open, between the logits of prompts that do not name a side (0) and of those that do (1)."""
RAMP = 0.15
"""Share of that distance over which it opens."""
LEAST_DISTANCE = 1e-2
BEYOND = 0.05
"""How far, in half widths of the ramp, every prompt that names a side lies beyond its end: room for rounding in lower precisions."""


@dataclass(frozen=True)
class FitSettings:
    """What the benchmark varies; the defaults are what it chose."""

    num_features: int = NUM_FEATURES
    steps: int = STEPS
    learning_rate: float = LEARNING_RATE
    weight_decay: float = WEIGHT_DECAY
    dropout: float = DROPOUT
    foreign: int = FOREIGN_TOKENS
    noise: float = NOISE
    lean: float = LEAN
    ramp: float = RAMP
    seed: int = 0


@dataclass(frozen=True)
class FittedGate:
    """Attributes:
    gate: float32, on the CPU.
    accuracy: by side, the share of held-out prompts for which the gate is exactly 0 or 1, and rightly so.
    margins: by side, how far apart the held-out logits of the least clear prompts lie that name it and that do not, where
        off and on are 2 apart; negative where they overlap.
    """

    gate: PromptGate
    accuracy: tuple[float, float]
    margins: tuple[float, float]


def fit_gate(
    texts: Sequence[torch.Tensor],
    names: torch.Tensor,
    wordings: Sequence[int] | None = None,
    settings: FitSettings | None = None,
) -> FittedGate:
    """A gate for such texts, exactly 1 for each of them that names a side. The same texts give the same gate.

    Args:
        texts: (T_i, X) tokens of each prompt; they are gone through three times, and held one at a time.
        names: (N, 2) bool: whether it names the identity, and the motion.
        wordings: a number for each; those of one number are held out together. Default: each by itself.

    Raises:
        ValueError: a side is named by no text, or by all.
    """
    settings = settings or FitSettings()
    if any(int(count) in (0, len(names)) for count in names.sum(0)):
        raise ValueError("Some of the texts must name a side, and some must not.")
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.inference_mode(False), torch.enable_grad():
        prompts = Trimmed(texts)
        is_held_out = _held_out(list(range(len(texts))) if wordings is None else wordings, generator)
        basis = whitened_basis(prompts, MOST_DIRECTIONS, generator)
        tokens = RaggedTokens.joined([unit_tokens(one) @ basis for one in prompts])
        features, weight, bias = _train(tokens.chosen((~is_held_out).nonzero()[:, 0]), names[~is_held_out].float(), settings, generator)
    logits = functional.linear(largest(tokens.values @ features.T, tokens.owners, len(names)), weight, bias)
    factor, shift = _calibration(logits[~is_held_out], names[~is_held_out], settings)
    unseen, wanted = logits[is_held_out] * factor + shift, names[is_held_out]  # by what was fitted alone, so that it tells the truth
    right = torch.where(wanted, unseen >= MARGIN, unseen <= -MARGIN).float().mean(0)
    margins = tuple(_gap(unseen[:, side], wanted[:, side]) for side in range(2))
    factor, shift = _calibration(logits, names, settings)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        gate = PromptGate(basis.shape[0], settings.num_features)
        gate.features.weight.copy_((basis @ features.T).T)
        gate.named.weight.copy_(factor[:, None] * weight)
        gate.named.bias.copy_(factor * bias + shift)
    return FittedGate(gate, tuple(right.tolist()), margins)


def _held_out(wordings: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """(N,) bool: whole wordings, about `HELD_OUT` of them."""
    different = sorted(set(wordings))
    order = torch.randperm(len(different), generator=generator).tolist()
    out = {different[place] for place in order[: int(HELD_OUT * len(different))]}
    return torch.tensor([wording in out for wording in wordings])


def _train(
    tokens: RaggedTokens, names: torch.Tensor, settings: FitSettings, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (R, D), weight (2, R) and bias (2,) in the whitened basis, for names (N, 2)."""
    dim, count = tokens.values.shape[1], settings.num_features
    features = torch.randn(count, dim, generator=generator) * 0.5
    weight = torch.randn(2, count, generator=generator) * 0.1
    for index in range(count):  # towards what tokens of naming prompts have and others have not; a token is about sqrt(D) long
        side = index % 2
        is_named = names[tokens.owners, side] > 0
        difference = tokens.values[is_named].mean(0) - tokens.values[~is_named].mean(0)
        features[index] += difference / difference.norm().clamp(min=1e-8) * dim**0.5
        weight[side, index] += 4 / count
    features, weight, bias = (features / dim).requires_grad_(), weight.requires_grad_(), torch.full((2,), -1.0, requires_grad=True)
    scaled_rate = settings.learning_rate / dim**0.5
    groups = [{"params": [features], "lr": scaled_rate}, {"params": [weight, bias], "lr": settings.learning_rate}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=settings.weight_decay)
    rates = [scaled_rate, settings.learning_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=settings.steps, pct_start=0.1, cycle_momentum=False)
    kinds = (names @ torch.tensor([2.0, 1.0])).long()
    kinds = [(kinds == kind).nonzero()[:, 0] for kind in kinds.unique().tolist()]
    for _ in range(settings.steps):
        prompts = torch.cat([kind[torch.randint(len(kind), (BATCH // len(kinds),), generator=generator)] for kind in kinds])
        batch, wanted = tokens.chosen(prompts), names[prompts]
        found, owners = _disturbed(batch, wanted, tokens, kinds[0], features, settings, generator)
        logits = functional.linear(largest(found, owners, len(prompts)), weight, bias)
        loss = functional.binary_cross_entropy_with_logits(SHARPNESS * logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return features.detach(), weight.detach(), bias.detach()


def _disturbed(
    batch: RaggedTokens,
    names: torch.Tensor,
    tokens: RaggedTokens,
    neither: torch.Tensor,
    features: torch.Tensor,
    settings: FitSettings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the features (R, D) find in a batch of prompts, (M, R), and the prompts (M,): in their tokens with noise, some of which
    are left out, and in tokens of prompts that name neither side and of none.

    Noise along a direction is a normal number times its length: it is drawn there, which is a fraction of the work.
    """
    lengths = features.norm(dim=1)
    dropout = settings.dropout * torch.where(names.any(dim=1), 1 / 3, 1.0)[batch.owners]
    kept = torch.rand(len(dropout), generator=generator) >= dropout
    added = len(names) * settings.foreign
    others = neither[torch.randint(len(neither), (added,), generator=generator)]
    starts, counts = (tokens.counts.cumsum(0) - tokens.counts)[others], tokens.counts[others]
    borrowed = tokens.values[starts + (torch.rand(added, generator=generator) * counts).long()]
    found = torch.cat([batch.values[kept], borrowed]) @ features.T
    found = found + settings.noise * lengths * torch.randn(found.shape, generator=generator)
    made = lengths * torch.randn(added, len(lengths), generator=generator)
    owners = torch.arange(len(names)).repeat_interleave(settings.foreign)
    return torch.cat([found, made]), torch.cat([batch.owners[kept], owners, owners])


def _calibration(logits: torch.Tensor, names: torch.Tensor, settings: FitSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors (2,) and shifts (2,) for logits (N, 2) that put the gate's margins between prompts that name a side (N, 2) and those
    that do not, but never above one that names it."""
    factors, shifts = torch.ones(2), torch.zeros(2)
    for side in range(2):
        named, others = logits[names[:, side], side], logits[~names[:, side], side]
        low, high = sorted((float(others.quantile(0.99)), float(named.quantile(0.01))))
        half = settings.ramp * max(high - low, LEAST_DISTANCE) / 2
        on = min(low + settings.lean * (high - low) + half, float(named.min()) - BEYOND * half)
        factors[side], shifts[side] = MARGIN / half, MARGIN - MARGIN / half * on
    return factors, shifts


def _gap(logits: torch.Tensor, names: torch.Tensor) -> float:
    """Distance between logits (N,) of prompts that name a side and that do not, without the least clear percent of each."""
    if not 0 < int(names.sum()) < len(names):
        return float("nan")
    return float(logits[names].quantile(0.01) - logits[~names].quantile(0.99))
