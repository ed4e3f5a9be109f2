"""What our own wires carry, where no native type fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy_api.latest import io

from ..dualreal_core.method.pair import AdapterPair, Role
from ..dualreal_core.storage.lora_file import BesideUpdate
from ..dualreal_core.training.recipes import Recipe

CATEGORY = "DualReal"
FILE_KEY = "dualreal_file"
"""Of a LATENT: the picture or clip that it was cut from, as our dataset nodes name it."""
CAPTION_KEY = "dualreal_caption"
"""Of a CONDITIONING: the caption that our dataset nodes encoded."""


@dataclass(frozen=True)
class BesideWeight:
    """What a LoRA changes where a pair cannot act by stage and depth: it is patched into the weight, at its side's strength.

    Attributes:
        expert: which of two models it is of; None: of any.
    """

    role: Role
    update: BesideUpdate
    expert: str | None = None


@dataclass(frozen=True)
class TrainedPair:
    """A pair and the header that its file has or would get.

    Attributes:
        beside: of LoRAs that it was made of; files of pairs do not keep it.
    """

    pair: AdapterPair
    header: Mapping[str, object] = field(default_factory=dict)
    beside: tuple[BesideWeight, ...] = ()

    def beside_of(self, role: Role) -> tuple[BesideWeight, ...]:
        """What one side brings."""
        return tuple(one for one in self.beside if one.role == role)


@dataclass(frozen=True)
class TrainerOptions:
    """What seldom needs a change: fields of `TrainSettings` and `PairConfig`, and when a run is saved."""

    train: Mapping[str, object]
    pair: Mapping[str, object]
    save_every: int


@dataclass(frozen=True)
class TrainerSettings:
    """How the Joint Trainer works: what decides the result, and what decides when it is saved and shown."""

    recipe: Recipe
    save_every: int
    preview_every: int


PairType = io.Custom("DUALREAL_PAIR")
BlendType = io.Custom("DUALREAL_BLEND")
FOR_BLEND = "For the nodes that put a pair on a model: their input blend."
"""The tooltip of what gives a BLEND."""
SettingsType = io.Custom("DUALREAL_SETTINGS")
OptionsType = io.Custom("DUALREAL_OPTIONS")
LossMapType = io.Custom("LOSS_MAP")
