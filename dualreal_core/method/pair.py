"""The trained thing: an identity side, a motion side, and what weighs them: a share schedule, or the paper's network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import nn

from ..families import CANONICAL, FamilyDescription, family_of
from .adapter import Adapter, Bottleneck, LoRA
from .layer_forms import FormAdapter
from .prompt_gate import NUM_FEATURES, PromptGate
from .stage_blender import StageBlender

Role = Literal["identity", "motion"]
ROLES: tuple[Role, ...] = get_args(Role)
AdapterKind = Literal["bottleneck", "bottleneck-skip", "lora", "none"]
LoraShape = tuple[int, int, int] | FormAdapter
"""(in width, out width, rank) of a LoRA adapter; one of another form, out of a file, is given itself, with weights of any kind."""
LoraShapes = Mapping[Role, Mapping[str, LoraShape]]
"""What each adapter of a LoRA side is, by its key."""
PER_SIDE = ("bottleneck_dim", "rank", "alpha")
"""Sizes that each side has of its own, as `identity_rank` and `motion_rank`; settings that name none, as `rank`, mean both."""
EXPERT_FIELDS = ("experts", "boundary")
GATE_FIELDS = ("text_dim", "gate_features")
FREE = 0.5
"""How far a network may move shares that start even, where nothing bounds it."""


@dataclass(frozen=True)
class PairConfig:
    """Form and sizes of a pair; stored in its file. The first block of fields describes the base it fits."""

    family: str
    dim: int
    num_blocks: int
    time_dim: int

    identity_kind: AdapterKind = "bottleneck"
    motion_kind: AdapterKind = "bottleneck"
    identity_bottleneck_dim: int = 64
    motion_bottleneck_dim: int = 64
    identity_rank: int = 16
    motion_rank: int = 16
    identity_alpha: float = 16.0
    motion_alpha: float = 16.0
    target_layers: tuple[str, ...] = ()
    """Linear layers LoRA updates, relative to a block, or parts of one, as `attn2` for those that read the text; empty: all that the
    family's sites name."""
    identity_condition_dim: int | None = None
    motion_condition_dim: int | None = None
    controller_dim: int | None = None
    """Width inside the network; None as in the paper: that of the time embedding."""
    num_groups: int = 7
    scale: float = 0.2
    """Sum of both weights."""
    has_controller: bool = True
    """A network learns the weights, as in the paper; without one they are the share schedule."""
    learned_range: float = field(default=FREE, repr=False)
    """Of former pairs: how far their network may move shares from where they start. Others are free, as in the paper."""
    share_schedule: tuple[float, ...] = ()
    """The identity's shares at evenly spaced points of denoising; empty: even. A network starts from them."""
    experts: tuple[str, ...] = field(default=(), repr=False)  # what has one DiT is to be told from others as it always was
    """Names of the DiTs that take turns in denoising, the noisiest first, as Wan 2.2 has two; empty: one DiT. Each has `num_blocks`
    blocks and `num_groups` groups of its own."""
    boundary: float | None = field(default=None, repr=False)
    """The sigma at which two experts switch, where it is known: the first one acts above it."""
    text_dim: int | None = field(default=None, repr=False)
    """Width of the text's tokens that the prompt gate reads; None: there is no gate."""
    gate_features: int = field(default=NUM_FEATURES, repr=False)
    """Directions of the text that the prompt gate looks for."""

    def __post_init__(self) -> None:
        for role in ROLES:
            if self.kind(role) not in get_args(AdapterKind):
                raise ValueError(f"{role}_kind is {self.kind(role)!r}; it must be one of {', '.join(get_args(AdapterKind))}.")
        if not 1 <= self.num_groups <= self.num_blocks:
            raise ValueError(f"num_groups is {self.num_groups}; it must lie between 1 and the {self.num_blocks} blocks of the base.")
        if not 0 < self.learned_range <= FREE:
            raise ValueError(f"learned_range is {self.learned_range}; it must lie above 0, and up to {FREE} (free).")
        if not all(0 <= share <= 1 for share in self.share_schedule):
            raise ValueError(f"share_schedule is {list(self.share_schedule)}; it holds shares from 0 to 1.")
        if len(self.experts) == 1 or len(set(self.experts)) < len(self.experts):
            raise ValueError(f"experts is {list(self.experts)}; it holds two or more different names, or none for one DiT.")
        if self.boundary is not None and not (self.experts and 0 < self.boundary < 1):
            raise ValueError(f"boundary is {self.boundary}; it is a sigma between 0 and 1, of a pair that has experts.")
        for name in ("scale", "controller_dim", *GATE_FIELDS, *(f"{role}_{size}" for size in PER_SIDE for role in ROLES)):
            size = getattr(self, name)
            if not (name in ("controller_dim", "text_dim") and size is None) and not 0 < size < math.inf:
                raise ValueError(f"{name} is {size}; it must be positive and finite.")

    def kind(self, role: Role) -> AdapterKind:
        """Kind of adapter of a role."""
        return self.identity_kind if role == "identity" else self.motion_kind

    def bottleneck_dim(self, role: Role) -> int:
        """Hidden width of the bottlenecks of a role."""
        return self.identity_bottleneck_dim if role == "identity" else self.motion_bottleneck_dim

    def rank(self, role: Role) -> int:
        """Rank of the LoRA of a role; of one out of a file, the highest of its layers."""
        return self.identity_rank if role == "identity" else self.motion_rank

    def scaling(self, role: Role) -> float:
        """Factor on the LoRA of a role: alpha / rank."""
        return (self.identity_alpha if role == "identity" else self.motion_alpha) / self.rank(role)

    def condition_dim(self, role: Role) -> int | None:
        """Width of the reference embedding a role is conditioned on; None where it takes none, as a LoRA."""
        if self.kind(role) == "lora":
            return None
        return self.identity_condition_dim if role == "identity" else self.motion_condition_dim

    def group_of(self, block: int) -> int:
        """Group of a block; groups are consecutive and differ by at most one block. Both are counted through all experts."""
        return block * self.num_groups // self.num_blocks

    @property
    def total_blocks(self) -> int:
        """Blocks of all experts."""
        return self.num_blocks * max(1, len(self.experts))

    @property
    def total_groups(self) -> int:
        """Groups of all experts."""
        return self.num_groups * max(1, len(self.experts))

    def recorded(self) -> dict[str, object]:
        """The fields as files keep them: those of experts and a gate only where there are some, so that older versions read all others,
        and those of a network likewise. `learned_range` says by itself that there is one."""
        unused = {*(() if self.experts else EXPERT_FIELDS), *(() if self.text_dim else GATE_FIELDS)}
        if not self.has_controller:
            unused |= {"controller_dim", "learned_range"}
        else:
            unused.add("learned_range" if self.learned_range == FREE else "has_controller")
        return {name: value for name, value in asdict(self).items() if name not in unused}


def base_sizes(transformer: nn.Module) -> dict[str, str | int]:
    """The `PairConfig` fields that describe a base: family, dim, num_blocks, time_dim."""
    family = family_of(transformer)
    blocks = list(family.blocks(transformer))
    first, block_list = blocks[0]
    layer = next(family.layer_parts(first, block_list.sites[0].linear_layers[0])).linear
    time_dim = family.time_width(transformer)
    return {"family": family.name, "dim": layer.in_features, "num_blocks": len(blocks), "time_dim": time_dim}


class AdapterPair(nn.Module):
    """Both sides' adapters, the controller and the prompt gate; these two stay in float32 when a pair is cast to a lower precision.

    `sides[role]` maps a key to an adapter: `<block>-<site>` for bottlenecks, `<block>-<linear layer>` with dots as
    slashes for LoRA. Blocks are counted through all experts: with two, those of the second begin at `num_blocks`.

    Args:
        config: form and sizes.
        adapter_keys: keys of the bottlenecks of a side, that is the sites of every block; by role where they differ.
        lora_shapes: sizes of the LoRA adapters of each LoRA side.

    Attributes:
        gate: says which sides a prompt names; None: both act whatever it says.
        first_group: the first of the StageBlender's groups that are this pair's own, where it is one expert's part of a pair.
    """

    first_group = 0

    def __init__(
        self, config: PairConfig, adapter_keys: Sequence[str] | Mapping[Role, Sequence[str]] = (), lora_shapes: LoraShapes | None = None
    ) -> None:
        super().__init__()
        self.config = config
        kinds = {role: config.kind(role) for role in ROLES}
        self.sides = nn.ModuleDict()
        for role in ROLES:
            if kinds[role] == "lora":
                shapes = (lora_shapes or {})[role]
                self.sides[role] = nn.ModuleDict({key: _of_shape(shape, config.scaling(role)) for key, shape in shapes.items()})
            elif kinds[role] != "none":
                keeps_skip = kinds[role] == "bottleneck-skip"
                sizes = config.dim, config.bottleneck_dim(role), config.condition_dim(role)
                keys = adapter_keys[role] if isinstance(adapter_keys, Mapping) else adapter_keys
                self.sides[role] = nn.ModuleDict({key: Bottleneck(*sizes, keeps_skip=keeps_skip) for key in keys})
        has_both = all(role in self.sides for role in ROLES)
        self.controller = (
            StageBlender(
                config.time_dim,
                config.dim,
                config.total_groups,
                config.scale,
                config.learned_range,
                config.share_schedule,
                config.controller_dim,
            )
            if config.has_controller and has_both
            else None
        )
        self.gate = PromptGate(config.text_dim, config.gate_features) if config.text_dim else None

    @property
    def family(self) -> FamilyDescription:
        """The description whose names this pair's files use."""
        return CANONICAL[self.config.family]

    def role_parameters(self, role: Role) -> list[nn.Parameter]:
        """Parameters of one side, in a fixed order."""
        return list(self.sides[role].parameters()) if role in self.sides else []

    def controller_parameters(self) -> list[nn.Parameter]:
        """Parameters of the StageBlender."""
        return [] if self.controller is None else list(self.controller.parameters())

    def gate_parameters(self) -> list[nn.Parameter]:
        """Parameters of the prompt gate."""
        return [] if self.gate is None else list(self.gate.parameters())


def with_gate(pair: AdapterPair, gate: PromptGate | None) -> AdapterPair:
    """A pair with the same sides and StageBlender, which are shared, and with this gate, or without one."""
    with torch.device("meta"):
        own = AdapterPair(replace(pair.config, **gate_sizes(gate)), lora_shapes={role: {} for role in ROLES})
    for role, side in own.sides.items():
        side.update(pair.sides[role].items())
    own.controller, own.first_group, own.gate = pair.controller, pair.first_group, gate
    return own


def gate_sizes(gate: PromptGate | None) -> dict[str, int | None]:
    """The `PairConfig` fields about a gate."""
    sizes = (None, NUM_FEATURES) if gate is None else (gate.features.in_features, gate.features.out_features)
    return dict(zip(GATE_FIELDS, sizes, strict=True))


def lora_key(block: int, layer: str) -> str:
    """Key of a LoRA adapter in a side (module names cannot hold dots)."""
    return f"{block}-{layer.replace('.', '/')}"


def new_pair(transformer: nn.Module, seed: int = 0, **settings: object) -> AdapterPair:
    """An untrained pair for a DiT; `settings` are `PairConfig` fields, or such for both sides (see `per_side`).

    With `experts` among them it has sides for each, all of this DiT's sizes.

    Weights are drawn from `seed` alone; the global generator is left as it was. `num_groups` is reduced to the
    number of blocks where the base has fewer.

    Raises:
        ValueError: a setting is out of range, or no family describes the DiT.
    """
    sizes = base_sizes(transformer)
    settings.setdefault("num_groups", min(7, sizes["num_blocks"]))
    config = PairConfig(**sizes, **per_side(settings))
    firsts = range(0, config.total_blocks, config.num_blocks)
    shapes = {
        role: {moved_key(key, first): shape for first in firsts for key, shape in lora_shapes(transformer, config, role).items()}
        for role in ROLES
        if config.kind(role) == "lora"
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AdapterPair(config, [moved_key(key, first) for first in firsts for key in site_keys(transformer)], shapes)


def per_side(settings: Mapping[str, object]) -> dict[str, object]:
    """`PairConfig` fields out of settings that may name a size for both sides; what they say of one side counts there."""
    both = {f"{role}_{name}": settings[name] for name in PER_SIDE if name in settings for role in ROLES}
    return {**both, **{name: value for name, value in settings.items() if name not in PER_SIDE}}


def site_keys(transformer: nn.Module) -> list[str]:
    """Keys of a bottleneck side: the sites of every block."""
    blocks = family_of(transformer).blocks(transformer)
    return [f"{index}-{site.name}" for index, (_, block_list) in enumerate(blocks) for site in block_list.sites]


def lora_shapes(transformer: nn.Module, config: PairConfig, role: Role) -> dict[str, tuple[int, int, int]]:
    """(in, out, rank) of the linear layers that the LoRA of a role updates, by key.

    Raises:
        ValueError: a target matches none of the family's layers, or none that this DiT has.
    """
    family = family_of(transformer)
    known, others = family.linear_layers(), [layer for block_list in family.block_lists for layer in block_list.other_layers]
    unknown = [
        target
        for target in config.target_layers
        if not any(_matches(layer, target) for layer in known) and not any(_is_within(layer, target) for layer in others)
    ]
    if unknown:
        raise ValueError(f"target_layers names {unknown[0]!r}; {family.name} blocks have {', '.join([*known, *others])}.")
    shapes = {}
    for index, (block, block_list) in enumerate(family.blocks(transformer)):
        layers = [layer for site in block_list.sites for layer in site.linear_layers]
        if config.target_layers:
            named = [one for one in block_list.other_layers if any(_is_within(one, target) for target in config.target_layers)]
            layers = [one for one in layers if any(_matches(one, target) for target in config.target_layers)] + named
        for layer in layers:
            try:
                parts = [part.linear for part in family.layer_parts(block, layer)]
            except AttributeError:
                if layer in block_list.other_layers:  # which some variants lack
                    continue
                raise
            out_features = sum(linear.out_features for linear in parts)
            shapes[lora_key(index, layer)] = parts[0].in_features, out_features, config.rank(role)
    found = {split_key(key)[1] for key in shapes}
    absent = [target for target in config.target_layers if not any(_matches(one, target) or _is_within(one, target) for one in found)]
    if absent:
        raise ValueError(f"target_layers names {absent[0]!r}, which models of {family.name} may have and this one has not.")
    return shapes


def shapes_of(pair: AdapterPair, role: Role) -> dict[str, LoraShape]:
    """What the adapters of a LoRA side are, by key, for another pair that gets weights of its own."""
    return {
        key: FormAdapter.of_state({name: tensor.to("meta") for name, tensor in adapter.state_dict().items()})
        if isinstance(adapter, FormAdapter)
        else (adapter.down.in_features, adapter.up.out_features, adapter.down.out_features)
        for key, adapter in pair.sides[role].items()
    }


def scaled_state(pair: AdapterPair, role: Role, factor: float, scaling: float = 1.0) -> dict[str, torch.Tensor]:
    """The state of a side whose updates are so many times as strong, in float32 on the CPU.

    Args:
        scaling: a further factor on what has one in the pair's configuration, that is on low-rank adapters.
    """
    state = {}
    for key, adapter in pair.sides[role].items():
        for name, tensor in adapter.state_dict().items():
            own = tensor.detach().to("cpu", torch.float32, copy=True)
            if isinstance(adapter, FormAdapter):
                state[f"{key}.{name}"] = own * factor if name == "strength" else own
            else:
                state[f"{key}.{name}"] = own * (factor * scaling) if name.startswith("up.") else own
    return state


def is_formed_side(pair: AdapterPair, role: Role) -> bool:
    """Whether a side has adapters of other forms than the plain low-rank one."""
    return role in pair.sides and any(isinstance(adapter, FormAdapter) for adapter in pair.sides[role].values())


def moved_key(key: str, num_blocks: int) -> str:
    """The key of an adapter at the same place of a block that lies so many blocks later, or earlier."""
    block, _, name = key.partition("-")
    return f"{int(block) + num_blocks}-{name}"


def split_key(key: str) -> tuple[int, str]:
    """(block, site or dotted layer path) of an adapter key."""
    block, _, name = key.partition("-")
    return int(block), name.replace("/", ".")


def iterate_sides(pair: AdapterPair) -> Iterator[tuple[Role, int, str, nn.Module]]:
    """(role, block, site or layer, adapter) over all adapters of a pair."""
    for role in ROLES:
        for key, adapter in pair.sides[role].items() if role in pair.sides else ():
            yield role, *split_key(key), adapter


def _of_shape(shape: LoraShape, scaling: float) -> Adapter:
    return shape if isinstance(shape, FormAdapter) else LoRA(*shape, scaling=scaling)


def _matches(layer: str, target: str) -> bool:
    return layer == target or layer.endswith("." + target) or target in layer.split(".")


def _is_within(layer: str, target: str) -> bool:
    """Whether a target names a layer, or the part of the block that it lies in; a last name alone means the sites' layers."""
    return layer == target or layer.startswith(f"{target}.")
