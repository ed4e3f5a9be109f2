"""A model of diffusers as the forms see it: its parameters by ComfyUI's names, and changes of these as changes of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from .layers import cogvideox_name, ltx_name, wan_name

FUSED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "hunyuan": {
        "double_blocks.{}.img_attn.qkv": tuple(f"transformer_blocks.{{}}.attn.to_{one}" for one in "qkv"),
        "double_blocks.{}.txt_attn.qkv": tuple(f"transformer_blocks.{{}}.attn.add_{one}_proj" for one in "qkv"),
        "double_blocks.{}.img_attn.proj": ("transformer_blocks.{}.attn.to_out.0",),
        "double_blocks.{}.txt_attn.proj": ("transformer_blocks.{}.attn.to_add_out",),
        "double_blocks.{}.img_mlp.0": ("transformer_blocks.{}.ff.net.0.proj",),
        "double_blocks.{}.img_mlp.2": ("transformer_blocks.{}.ff.net.2",),
        "double_blocks.{}.txt_mlp.0": ("transformer_blocks.{}.ff_context.net.0.proj",),
        "double_blocks.{}.txt_mlp.2": ("transformer_blocks.{}.ff_context.net.2",),
        "double_blocks.{}.img_mod.lin": ("transformer_blocks.{}.norm1.linear",),
        "double_blocks.{}.txt_mod.lin": ("transformer_blocks.{}.norm1_context.linear",),
        "single_blocks.{}.linear1": (
            *(f"single_transformer_blocks.{{}}.attn.to_{one}" for one in "qkv"), "single_transformer_blocks.{}.proj_mlp",
        ),
        "single_blocks.{}.linear2": ("single_transformer_blocks.{}.proj_out",),
        "single_blocks.{}.modulation.lin": ("single_transformer_blocks.{}.norm.linear",),
    },
}  # fmt: skip
"""By family: ComfyUI's layer, and those of diffusers whose outputs it has one after the other."""
MOST_BLOCKS = 8


@dataclass
class DiffusersModel:
    """See the module.

    Attributes:
        places: ComfyUI's name of a parameter to those of diffusers, in the order of its rows.
    """

    transformer: nn.Module
    places: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, family: str, transformer: nn.Module) -> DiffusersModel:
        """family: one that diffusers names as ComfyUI does up to parts of the name, or one of `FUSED`."""
        names = [name for name, _ in transformer.named_parameters()]
        if family.partition(" ")[0] in FUSED:
            found = {}
            for layer, parts in FUSED[family.partition(" ")[0]].items():
                for number in range(MOST_BLOCKS):
                    for end in ("weight", "bias"):
                        own = tuple(f"{part.format(number)}.{end}" for part in parts)
                        if set(own) <= set(names):
                            found[f"{layer.format(number)}.{end}"] = own
            return cls(transformer, found)
        return cls(transformer, {native: (name,) for name in names for native in [_native(name, NAMINGS[family])] if native})

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """By ComfyUI's names."""
        own = dict(self.transformer.named_parameters())
        return {native: torch.cat([own[part].detach().float() for part in parts]) for native, parts in self.places.items()}

    def changes(self, deltas: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Changes of ComfyUI's parameters as such of the model's own."""
        own, found = dict(self.transformer.named_parameters()), {}
        for native, delta in deltas.items():
            parts = self.places[native]
            sizes = [own[part].shape[0] for part in parts]
            found |= dict(zip(parts, delta.split(sizes), strict=True))
        return {name: delta for name, delta in found.items() if delta.any()}


NAMINGS: Mapping[str, Callable[[str], str]] = {
    "wan": wan_name, "cogvideox": cogvideox_name, "ltx": ltx_name, "ltx2": lambda name: name,
}  # fmt: skip
_CANDIDATES: Mapping[Callable[[str], str], tuple[str, ...]] = {
    wan_name: (
        *(f"self_attn.{one}" for one in ("q", "k", "v", "o", "norm_q", "norm_k")), "ffn.0", "ffn.2",
        *(f"cross_attn.{one}" for one in ("q", "k", "v", "o", "norm_q", "norm_k", "k_img", "v_img")),
    ),
    cogvideox_name: ("q", "k", "v", "attn_out", "ff_proj", "ff_out", "norm1.linear", "norm2.linear"),
}  # fmt: skip
_OUTSIDE = (
    "head.head",
    "text_embedding.0",
    "text_embedding.2",
    "time_embedding.0",
    "time_embedding.2",
    "time_projection.1",
    "patch_embedding",
)


def _native(name: str, naming: Callable[[str], str]) -> str | None:
    """ComfyUI's name of a parameter of diffusers; None where the forms do not know it."""
    if naming not in _CANDIDATES:
        return name
    path, _, end = name.rpartition(".")
    natives = [f"blocks.{number}.{layer}" for number in range(MOST_BLOCKS) for layer in _CANDIDATES[naming]]
    return next((f"{native}.{end}" for native in (*natives, *_OUTSIDE) if naming(native) == path), None)
