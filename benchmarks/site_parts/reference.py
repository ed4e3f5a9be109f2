"""The arithmetic of the published implementation, with plain modules: what it computes for each token, side and step.

Every adapter has its inner skip and is computed on its own at full width and precision; the condition is repeated for every token
and projected token by token; both updates are scaled at full width and added. In training both sides' gradients are computed, and
those of the resting side thrown away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from gpu_parts.shapes import RandomBase
from torch import nn
from torch.nn import functional

from dualreal_core.method.pair import ROLES, Role, base_sizes
from dualreal_core.method.stage_blender import StageBlender

from .models import CONDITION_DIM

HIDDEN_DIM = 64
SCALE = 0.2


class ReferenceAdapter(nn.Module):
    """`up(gelu(down(x + cond(c)))) + x`."""

    def __init__(self, dim: int, condition_dim: int | None) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, HIDDEN_DIM), nn.Linear(HIDDEN_DIM, dim)
        self.condition_linear = None if condition_dim is None else nn.Linear(condition_dim, dim)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """hidden: (B, T, C); condition: (B, T, E), the same for each token -> (B, T, C)."""
        shifted = hidden
        if self.condition_linear is not None and condition is not None:
            shifted = hidden + self.condition_linear(condition)
        return self.up(functional.gelu(self.down(shifted))) + hidden


class ReferencePair(nn.Module):
    """Both sides, the motion's with a condition, and the StageBlender, hooked into a base for good.

    Attributes:
        condition: reference embedding (B or 1, E) of the next calls, or None.
    """

    def __init__(self, base: RandomBase) -> None:
        super().__init__()
        family, sizes = base.family, base_sizes(base.transformer)
        blocks = list(family.blocks(base.transformer))
        num_groups = min(7, len(blocks))
        self.condition: torch.Tensor | None = None
        self.sides = nn.ModuleDict({role: nn.ModuleDict() for role in ROLES})
        self.controller = StageBlender(sizes["time_dim"], sizes["dim"], num_groups, SCALE)
        self._embedding: torch.Tensor | None = None
        self._weights: torch.Tensor | None = None
        self._repeated: torch.Tensor | None = None
        base.transformer.get_submodule(family.time_embedding).register_forward_hook(self._keep_embedding(family.time_embedding_output))
        blocks[0][0].register_forward_pre_hook(self._choose_weights(family.block_streams, family.controller_streams), with_kwargs=True)
        for index, (block, block_list) in enumerate(blocks):
            for site in block_list.sites:
                key, group = f"{index}-{site.name}", index * num_groups // len(blocks)
                for role in ROLES:
                    self.sides[role][key] = ReferenceAdapter(sizes["dim"], CONDITION_DIM if role == "motion" else None)
                update = self._add_updates(key, group, site.streams)
                block.get_submodule(site.reads).register_forward_hook(update, with_kwargs=True)

    def drop_gradients(self, role: Role) -> None:
        """Throws away what the backward pass of a side's step has computed for the other one."""
        for other in ROLES:
            for parameter in self.sides[other].parameters() if other != role else ():
                parameter.grad = None

    def _keep_embedding(self, place: int | None) -> Callable:
        def hook(module: nn.Module, args: tuple, output: torch.Tensor | tuple) -> None:
            self._embedding = output if place is None else output[place]

        return hook

    def _choose_weights(self, names: tuple[str, ...], pooled: tuple[str, ...]) -> Callable:
        def hook(block: nn.Module, args: tuple, kwargs: dict) -> None:
            streams = {name: kwargs[name] if name in kwargs else args[place] for place, name in enumerate(names)}
            self._weights = self.controller(self._embedding, [streams[name] for name in pooled])
            self._repeated = None
            if self.condition is not None:
                rows, num_tokens = len(streams[names[0]]), sum(stream.shape[1] for stream in streams.values())
                self._repeated = self.condition[:, None].repeat(rows // len(self.condition), num_tokens, 1)  # (B, T, E)

        return hook

    def _add_updates(self, key: str, group: int, names: tuple[str, ...]) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
            streams = [kwargs[name] if name in kwargs else args[place] for place, name in enumerate(names)]
            outputs = output if isinstance(output, tuple) else (output,)
            hidden, joined = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for parts in (streams, list(outputs)))
            weights = self._weights[:, group, :, None, None]  # (B, 2, 1, 1)
            updates = [weights[:, place] * self.sides[role][key](hidden, self._repeated) for place, role in enumerate(ROLES)]
            joined = joined + (updates[0] + updates[1])
            parts = joined.split([stream.shape[1] for stream in streams], dim=1)
            return tuple(parts) if isinstance(output, tuple) else parts[0]

        return hook
