"""What takes turns in a run: a DiT with its part of the pair, at its own noise. A run has one, or two experts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ..bases import Base
from ..bases.two_experts import TwoExpertBase
from ..method.attach import Attachment
from ..method.experts import experts_of
from ..method.experts_attachment import ExpertsAttachment
from ..method.pair import ROLES, AdapterPair, Role
from ..objective import SigmaRange
from .noise_range import expert_ranges
from .settings import TrainSettings

CONTROLLER = "controller"
"""The part that all experts share."""


@dataclass(frozen=True)
class ExpertInTraining:
    """One of the DiTs of a run.

    Attributes:
        index: of the expert in its base.
        name: as the pair names it; empty where there is one DiT.
        attachment: the pair, or this expert's part of it, at work in the DiT.
        within: the noise levels that it is trained at.
    """

    index: int
    name: str
    attachment: Attachment
    within: SigmaRange

    def part(self, role: Role) -> str:
        """Name of a role's parameters, as `parts_of` has them."""
        return _part_name(self.name, role)

    @contextmanager
    def others_at_rest(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Inside, the optimizer of the StageBlender may step; what it does to outputs for other experts is undone.

        They get no gradient, but decay and momentum would move them: those of all experts are rows of one weight. What an optimizer
        keeps quantized (adamw8bit) cannot be undone; weights can.
        """
        pair, kept = self.attachment.pair, []
        last = pair.controller.out if self.name else nn.Identity()
        own = slice(pair.first_group, pair.first_group + pair.config.num_groups)
        for parameter in last.parameters():
            kept.append((parameter, "", parameter.detach().clone()))
            kept += [(parameter, name, value.clone()) for name, value in _row_states(optimizer, parameter)]
        yield
        with torch.no_grad():
            for parameter in last.parameters():
                before = {name: value for of, name, value in kept if of is parameter}
                for name, value in [("", parameter), *_row_states(optimizer, parameter)]:
                    if name in before:  # what is kept since this step alone knows nothing of them
                        before[name][own] = value[own]
                        value.copy_(before[name])


def experts_in_training(base: Base, attachment: Attachment | ExpertsAttachment, settings: TrainSettings) -> list[ExpertInTraining]:
    """The DiTs of a run, the noisiest first.

    Raises:
        InputError: the noise that is set leaves one of them nothing to be trained at.
    """
    if not isinstance(base, TwoExpertBase):
        return [ExpertInTraining(0, "", attachment, settings.sigma_range)]
    names, ranges = attachment.pair.config.experts, expert_ranges(settings, base)
    parts = zip(names, attachment.parts, ranges, strict=True)
    return [ExpertInTraining(index, name, part, within) for index, (name, part, within) in enumerate(parts)]


def parts_of(pair: AdapterPair) -> dict[str, list[nn.Parameter]]:
    """Parameters that train or rest together, by name: 'identity' and 'motion', of each expert where there are several ('high-noise
    identity'), and 'controller'."""
    names = pair.config.experts or ("",)
    parts = {
        _part_name(name, role): view.role_parameters(role) for name, view in zip(names, experts_of(pair), strict=True) for role in ROLES
    }
    return {**parts, CONTROLLER: pair.controller_parameters()}


def _part_name(expert: str, role: Role) -> str:
    return f"{expert} {role}".lstrip()


def _row_states(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> list[tuple[str, torch.Tensor]]:
    """What an optimizer keeps of each value of a parameter, by name."""
    state = optimizer.state.get(parameter, {})
    values = [(name, value) for name, value in state.items() if isinstance(value, torch.Tensor) and value.numel() == parameter.numel()]
    return [(name, value.view(parameter.shape)) for name, value in values if value.is_floating_point()]  # some keep them flat
