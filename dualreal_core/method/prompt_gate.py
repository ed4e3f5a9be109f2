"""The prompt gate: from the text that the DiT is called with to whether it names the identity and the motion."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from ..errors import InputError
from .adapter import zero_init
from .float32_module import Float32Module

MARGIN = 1.0
"""Logits beyond it on either side are exactly 0 (not named) or 1 (named)."""
NUM_FEATURES = 16
LEAST_SQUARE = 1e-12
"""Mean square of a token that counts as such; zeros stay zeros."""


class PromptGate(Float32Module):
    """Says for each side whether a prompt names it: 0 (the side is off) to 1 (on). The weights of any blend are multiplied by it.

    Tokens are compared by direction alone, and each feature by the token that has most of it, at least none: so neither the
    order of the tokens nor padding by zeros nor by tokens that are there already changes anything. As it starts, all is named.

    It computes in float32 whatever the precision around it, and stays so when the pair is cast.

    Args:
        text_dim: width X of the text's tokens.
        num_features: R, directions that are looked for.
    """

    def __init__(self, text_dim: int, num_features: int = NUM_FEATURES) -> None:
        super().__init__()
        self.features = nn.Linear(text_dim, num_features, bias=False)
        self.named = nn.Linear(num_features, 2)
        zero_init(self.named)
        nn.init.constant_(self.named.bias, MARGIN)

    def logits(self, text: torch.Tensor) -> torch.Tensor:
        """Logits (B, 2), identity first, of tokens (B, T, X); positive where a side is named.

        Raises:
            InputError: the tokens are of another width, those of another text encoder.
        """
        text_dim = self.features.in_features
        if text.shape[-1] != text_dim:
            raise InputError(
                f"The pair's prompt gate reads text of width {text_dim}, and the model was called with text of width {text.shape[-1]}: "
                "use the text encoder for which the gate was made, or have the pair not follow the prompt."
            )
        kind = text.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            tokens = text.to(self.features.weight.dtype)
            tokens = tokens * tokens.square().mean(dim=-1, keepdim=True).clamp(min=LEAST_SQUARE).rsqrt()
            most = self.features(tokens).amax(dim=1).clamp(min=0)  # (B, R)
            return self.named(most)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """How far each side is named (B, 2), identity first, by tokens (B, T, X): exactly 0 or 1 beyond the margin."""
        return ((self.logits(text) + MARGIN) / (2 * MARGIN)).clamp(0, 1)


def joined_gate(identity: PromptGate | None, motion: PromptGate | None) -> PromptGate | None:
    """What the first says of the identity and the second of the motion, in float32 on the CPU; a side without a gate is always named.

    None where both are, or where they read text of different widths.
    """
    gates = (identity, motion)
    widths = {gate.features.in_features for gate in gates if gate is not None}
    if len(widths) != 1:
        return None
    directions = [gate.features.weight.detach().cpu() if gate is not None else torch.zeros(0, *widths) for gate in gates]
    named, bias, begin = torch.zeros(2, sum(map(len, directions))), torch.full((2,), MARGIN), 0
    for side, (gate, own) in enumerate(zip(gates, directions, strict=True)):
        if gate is not None:
            named[side, begin : begin + len(own)], bias[side] = gate.named.weight.detach()[side].cpu(), gate.named.bias.detach()[side].cpu()
        begin += len(own)
    with torch.device("meta"):
        joined = PromptGate(*widths, begin)
    joined.load_state_dict({"features.weight": torch.cat(directions), "named.weight": named, "named.bias": bias}, assign=True)
    return joined
