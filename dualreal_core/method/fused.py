"""Both sides of a site in one pass, for sampling: one product down to the hidden width, one up, instead of two each.

The hidden halves are scaled by the blend's weights; equal to the sum of the two adapters up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from .adapter import Bottleneck, LoRA
from .pair import ROLES, Role


@dataclass
class FusedSite:
    """The adapters of one site, side by side; their joined weights are kept until one of them changes.

    Attributes:
        adapters: by role; of one class, and none with an inner skip (see `can_fuse`).
    """

    adapters: Mapping[Role, nn.Module]
    _key: tuple = ()
    _joined: tuple[torch.Tensor, ...] = field(default=())

    def add_to(
        self, output: torch.Tensor, hidden: torch.Tensor, weights: torch.Tensor, condition: torch.Tensor | None
    ) -> torch.Tensor:
        """Adds the weighted updates to an output.

        output: (B, T, D), left as it is; hidden: (B, T, C); weights: (B, 2); condition: (B or 1, E) or None -> (B, T, D).
        """
        down, down_bias, up, up_biases = self._join()
        roles = [role for role in ROLES if role in self.adapters]
        code = functional.linear(hidden, down, down_bias)  # (B, T, R)
        if condition is not None:
            shifts = []
            for adapter in (self.adapters[role] for role in roles):
                asks = isinstance(adapter, Bottleneck) and adapter.condition_proj is not None
                shift = functional.linear(adapter.condition_proj(condition), adapter.down.weight) if asks else None
                shifts.append(condition.new_zeros(len(condition), adapter.down.out_features) if shift is None else shift)
            code = code + torch.cat(shifts, dim=1)[:, None]
        if up_biases is not None:
            code = functional.gelu(code)
            first = ROLES.index(roles[0])
            used = weights[:, first : first + len(roles)].to(up_biases.dtype)  # (B, K)
            output = output + (used @ up_biases)[:, None]
        # neither here nor above are columns picked by an index tensor or a list: each would be a copy to the device
        parts = code.split([self.adapters[role].down.out_features for role in roles], dim=-1)
        for role, part in zip(roles, parts, strict=True):
            part.mul_(weights[:, ROLES.index(role), None, None])
        shape = output.shape
        return torch.addmm(output.reshape(-1, shape[-1]), code.reshape(-1, code.shape[-1]), up.t()).reshape(shape)

    def _join(self) -> tuple[torch.Tensor, ...]:
        adapters = [self.adapters[role] for role in ROLES if role in self.adapters]
        weights = [weight for adapter in adapters for layer in (adapter.down, adapter.up) for weight in layer.parameters()]
        key = tuple((weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version) for weight in weights)
        if key != self._key:
            down = torch.cat([adapter.down.weight for adapter in adapters])
            scalings = [adapter.scaling if isinstance(adapter, LoRA) else 1.0 for adapter in adapters]
            up = torch.cat([adapter.up.weight * scaling for adapter, scaling in zip(adapters, scalings, strict=True)], dim=1)
            has_bias = adapters[0].up.bias is not None
            down_bias = torch.cat([adapter.down.bias for adapter in adapters]) if has_bias else None
            up_biases = torch.stack([adapter.up.bias for adapter in adapters]) if has_bias else None
            self._key, self._joined = key, (down, down_bias, up, up_biases)
        return self._joined


def can_fuse(adapters: Mapping[Role, nn.Module]) -> bool:
    """Whether the adapters of a site are of one class and have no inner skip."""
    kinds = {type(adapter) for adapter in adapters.values()}
    return len(kinds) == 1 and not any(getattr(adapter, "keeps_skip", False) for adapter in adapters.values())
