"""The models that are measured, with weights of noise, what is put through them, and the pairs on them."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from gpu_parts.shapes import COGVIDEOX_5B, WAN_13B, RandomBase, Shape, tiny
from torch import nn

from dualreal_core.bases.folder_layouts import cogvideox_rotary
from dualreal_core.dataset import PreparedItem
from dualreal_core.method.adapter import LoRA
from dualreal_core.method.attach import Attachment
from dualreal_core.method.pair import ROLES, AdapterPair, Role, iterate_sides, new_pair
from dualreal_core.training.recipes import DUALREAL, PAPER

CONDITION_DIM = 1024
STAGE = 0.5
_BOTTLENECKS = {"identity_kind": "bottleneck", "motion_kind": "bottleneck", "bottleneck_dim": 64}
PAIRS: Mapping[str, Mapping[str, object]] = {
    "LoRA 32": {**DUALREAL.pair, "rank": 32, "alpha": 32.0},
    "bottleneck 64": {**DUALREAL.pair, **_BOTTLENECKS},
    "bottleneck 64 with condition": {**DUALREAL.pair, **_BOTTLENECKS, "motion_condition_dim": CONDITION_DIM},
    "paper's form": {**PAPER.pair, "bottleneck_dim": 64, "motion_condition_dim": CONDITION_DIM},
}
"""`PairConfig` fields, or such for both sides, by the name of an arm."""


@dataclass(frozen=True)
class Size:
    """A model, and how many rows a batch of it has; of clips, while it is trained."""

    title: str
    shape: Shape
    batch: int

    @property
    def tiny(self) -> Size:
        """The same kind at a size for tests."""
        shape = tiny(self.shape)
        return replace(self, title=f"{self.shape.family}, tiny", shape=replace(shape, config={**shape.config, "num_layers": 2}))


def _size(title: str, family: str, config: Mapping[str, object], latents: Sequence[int], text: Sequence[int], batch: int) -> Size:
    return Size(title, Shape(family, config, "noise", tuple(latents), tuple(text), False, 1), batch)


WAN_256 = {**WAN_13B, "num_attention_heads": 4, "attention_head_dim": 64, "ffn_dim": 1024, "num_layers": 6, "text_dim": 256}
COGVIDEOX_512 = {
    **COGVIDEOX_5B, "num_attention_heads": 8, "text_embed_dim": 512, "num_layers": 7,
    "sample_width": 24, "sample_height": 16, "sample_frames": 17,
}  # fmt: skip
SAMPLED = (
    _size("Wan, 1536 x 2 blocks, 1560 tokens", "wan", {**WAN_13B, "num_layers": 2}, (16, 1, 60, 104), (512, 4096), 1),
    _size("Wan, 256 x 6 blocks, 144 tokens", "wan", WAN_256, (16, 9, 8, 8), (16, 256), 2),
    _size("CogVideoX, 512 x 7 blocks, 706 tokens", "cogvideox", COGVIDEOX_512, (16, 5, 16, 24), (226, 512), 2),
)
TRAINED = (
    _size(
        "Wan, 1024 x 3 blocks, 1248 tokens", "wan",
        {**WAN_13B, "num_attention_heads": 8, "ffn_dim": 4096, "num_layers": 3}, (16, 4, 24, 52), (512, 4096), 1,
    ),
    replace(SAMPLED[2], batch=3),
)  # fmt: skip


def make_base(size: Size) -> RandomBase:
    """The model on the CPU in float32."""
    return RandomBase(size.shape, torch.device("cpu"), torch.float32)


def twin(base: RandomBase) -> RandomBase:
    """Another base of the same weights: modules of its own, for hooks, that share all tensors."""
    transformer = base.transformer
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    other = copy.copy(base)
    other.transformer = copy.deepcopy(transformer, shared)
    return other


def call_inputs(base: RandomBase, rows: int) -> dict[str, object]:
    """Keyword arguments of a call of the DiT with so many rows."""
    item = base.clip()
    latents = item.latents.expand(rows, *item.latents.shape).contiguous()
    text = item.text.expand(rows, *item.text.shape).contiguous()
    given = {"timestep": torch.full((rows,), 500), "encoder_hidden_states": text, "return_dict": False}
    if base.family.name == "wan":
        return {"hidden_states": latents, **given}
    return {"hidden_states": latents.transpose(1, 2), "image_rotary_emb": cogvideox_rotary(base.transformer, latents), **given}


def item_of(base: RandomBase, role: Role) -> PreparedItem:
    """What a side is trained on: a clip with an embedding of one of its frames, or a photo, which is one frame."""
    clip = base.clip()
    if role == "identity":
        return replace(clip, latents=clip.latents[:, :1])
    return replace(clip, conditions=embedding())


def embedding() -> torch.Tensor:
    """A reference embedding (1, E)."""
    return torch.randn(1, CONDITION_DIM, generator=torch.Generator().manual_seed(5))


def make_pair(base: RandomBase, name: str) -> AdapterPair:
    """A pair of `PAIRS`, every weight of it noise."""
    return fill(new_pair(base.transformer, 0, **PAIRS[name]))


def fill(module: nn.Module) -> nn.Module:
    """Gives every parameter small random values."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return module


def merge(base: RandomBase, pair: AdapterPair, weight: float) -> None:
    """Adds both sides of a LoRA pair to copies of the weights of a base, as no pair can do whose weights change from step to step."""
    blocks = [block for block, _ in base.family.blocks(base.transformer)]
    layers = set()
    for _, index, name, adapter in iterate_sides(pair):
        if not isinstance(adapter, LoRA):
            raise TypeError(f"{name} holds a {type(adapter).__name__}; only LoRA can be merged.")
        layer = next(base.family.layer_parts(blocks[index], name)).linear
        if layer not in layers:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            layers.add(layer)
        layer.weight.data += weight * adapter.scaling * adapter.up.weight.data @ adapter.down.weight.data


def inject_plain_lora(base: RandomBase, names: Sequence[str], rank: int = 32) -> list[nn.Parameter]:
    """Adapters of peft on the layers on which a LoRA pair acts, all active; their weights."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=base.family.linear_layers())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two at once are what is measured
        for name in names:
            inject_adapter_in_model(settings, base.transformer, adapter_name=name)
    for module in base.transformer.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(list(names))
    weights = {name: weight for name, weight in base.transformer.named_parameters() if "lora_" in name}
    fill(nn.ParameterList(weights.values()))
    return list(weights.values())


def attach(base: RandomBase, pair: AdapterPair, is_conditioned: bool = False) -> Attachment:
    """The pair at work in the middle of denoising."""
    attachment = Attachment(base.transformer, pair)
    attachment.stage = STAGE
    attachment.condition = embedding() if is_conditioned else None
    return attachment


def is_conditioned(name: str) -> bool:
    """Whether a pair of `PAIRS` reads a reference embedding."""
    return any(PAIRS[name].get(f"{role}_condition_dim") for role in ROLES)


def backend_name() -> str:
    """What torch.compile is given: inductor where a C++ compiler works, else a backend that needs none."""
    if importlib.util.find_spec("torch._inductor") is None:
        return "aot_eager"
    try:
        compiled = torch.compile(lambda tensor: (tensor + 1).relu() * 2, backend="inductor")
        compiled(torch.ones(64))
    except Exception:  # whatever it is that fails there, a compiler, a header or a linker
        return "aot_eager"
    return "inductor"
