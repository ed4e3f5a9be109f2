"""Two bases as one: the experts of a model, of which one runs where there is much noise and the other where there is little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import InputError
from ..families.base_record import base_record
from ..families.expert_names import EXPERTS
from ..method.attach import Attachment
from ..method.blend import Blend
from ..method.experts_attachment import ExpertsAttachment
from ..method.pair import AdapterPair, base_sizes
from ..objective import SigmaRange
from .base import Base


class TwoExpertBase:
    """See `bases.base.Base` for every member. What is not named here is that of the first expert, as both share it.

    One expert has its weights on the device at a time: the other one rests.

    Attributes:
        experts: the one that runs at much noise, and the other one.
        boundary: the noise level (sigma) from which on the first one runs.
    """

    def __init__(self, high: Base, low: Base, boundary: float) -> None:
        """Raises InputError where the experts differ in size, or the boundary is none."""
        if not 0 < boundary < 1:
            raise InputError(f"The boundary between both experts of {high.name} is {boundary:g}: it must be a sigma between 0 and 1.")
        ours, theirs = (base_sizes(expert.architecture) for expert in (high, low))
        for name, value in ours.items():
            if theirs[name] != value:
                raise InputError(
                    f"The high-noise expert has {name} {value} and the low-noise expert {theirs[name]}: use the two experts of one model."
                )
        self.experts, self.boundary, self.current = (high, low), boundary, 0

    def __getattr__(self, name: str) -> object:
        if name == "experts":  # before there are any
            raise AttributeError(name)
        return getattr(self.experts[0], name)

    @property
    def fingerprint(self) -> str:
        """Of what both were made with; once, where that is the same."""
        return " ".join(dict.fromkeys(expert.fingerprint for expert in self.experts))

    @property
    def sigma_ranges(self) -> tuple[SigmaRange, SigmaRange]:
        """The noise levels at which each expert runs."""
        return (self.boundary, 1.0), (0.0, self.boundary)

    @property
    def architectures(self) -> list[nn.Module]:
        """The modules of both experts, whose weights may be absent."""
        return [expert.architecture for expert in self.experts]

    @property
    def transformer(self) -> nn.Module:
        """Of the expert that is at work."""
        return self.experts[self.current].transformer

    def at_work(self, index: int) -> Base:
        """An expert, whose weights come to the device when they are first used; those of the other one leave it."""
        if index != self.current:
            self.experts[self.current].rest()
            self.current = index
        return self.experts[index]

    def rest(self) -> None:
        """Takes the weights of both off the device."""
        for expert in self.experts:
            expert.rest()

    @contextmanager
    def encoders(self) -> Iterator[None]:
        self.rest()
        with self.experts[0].encoders():
            yield

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Runs the expert of these timesteps (B,), which all belong to one; else as `Base.predict`."""
        levels = self.experts[0].objective.noise_level(timestep)
        return self.at_work(0 if levels.max() >= self.boundary else 1).predict(latents, timestep, text)


def at_work(base: Base, index: int) -> Base:
    """An expert of a base, ready to be used alone; of one that has no experts, the base itself."""
    return base.at_work(index) if isinstance(base, TwoExpertBase) else base


def current_expert(base: Base) -> int:
    """The expert that is at work."""
    return base.current if isinstance(base, TwoExpertBase) else 0


def names_of_experts(base: Base) -> tuple[str, ...]:
    """As a pair for them has them; empty where there is one DiT."""
    return EXPERTS if isinstance(base, TwoExpertBase) else ()


def expert_fields(base: Base) -> dict[str, object]:
    """The fields of a `PairConfig` about experts."""
    return {"experts": names_of_experts(base), "boundary": base.boundary} if isinstance(base, TwoExpertBase) else {}


def attach(
    base: Base, pair: AdapterPair, blend: Blend | None = None, transformer: nn.Module | None = None
) -> Attachment | ExpertsAttachment:
    """The pair at work in all DiTs of a base, whose weights may be absent.

    Args:
        transformer: of a base without experts; default: its architecture.

    Raises:
        InputError: the pair was made for another architecture.
    """
    if isinstance(base, TwoExpertBase):
        return ExpertsAttachment(base.architectures, pair, blend)
    return Attachment(base.architecture if transformer is None else transformer, pair, blend)


def record_of(base: Base, files: Sequence[str | None]) -> dict[str, object]:
    """What tells a base from others, as headers record it; of experts each under its name.

    Args:
        files: names of the files that the DiTs come from, or of the one that all are in.
    """
    names, records = names_of_experts(base), {}
    for index in reversed(range(len(names))):  # the first one, which trains first, comes to work last
        records[names[index]] = base_record(base.at_work(index).transformer, files[min(index, len(files) - 1)])
    return {name: records[name] for name in names} if names else base_record(base.transformer, files[0])
