"""Published models by the widths of their linear layers: stand-ins for DiTs of which nothing but names and sizes is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from . import DESCRIPTIONS
from .description import FamilyDescription

Widths = Mapping[str, tuple[int, int]]
"""(inputs, outputs) of the layers of a block, by the names of the class in ComfyUI."""


@dataclass(frozen=True)
class PublishedModel:
    """Attributes:
    family: its name.
    num_blocks: of each list of blocks.
    widths: of the layers in a block of each list.
    time_dim: width of the time embedding.
    """

    family: str
    num_blocks: tuple[int, ...]
    widths: tuple[Widths, ...]
    time_dim: int

    @property
    def description(self) -> FamilyDescription:
        """Of its class in ComfyUI."""
        return next(one for one in DESCRIPTIONS if (one.name, one.package) == (self.family, "comfy"))

    def stand_in(self) -> nn.Module:
        """A module with the names and sizes of the DiT's linear layers, on the meta device; it computes nothing."""
        family = self.description
        # what tells a DiT is its class and the package that this is of
        transformer = type(family.class_name, (nn.Module,), {"__module__": f"{family.package}.stand_in"})()
        with torch.device("meta"):
            for listed, number, widths in zip(family.block_lists, self.num_blocks, self.widths, strict=False):
                blocks = nn.ModuleList(nn.Module() for _ in range(number))
                for block in blocks:
                    for path, (inputs, outputs) in widths.items():
                        _put(block, path, nn.Linear(inputs, outputs, bias=False))
                _put(transformer, listed.path, blocks)
            if len(self.num_blocks) < len(family.block_lists):
                _put(transformer, family.block_lists[-1].path, nn.ModuleList())
            if family.time_argument is None:
                _put(transformer, family.time_linear, nn.Linear(1, self.time_dim, bias=False))
        return transformer


def _put(module: nn.Module, path: str, child: nn.Module) -> None:
    *above, name = path.split(".")
    for part in above:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    module.add_module(name, child)


def _projections(attention: str, names: tuple[str, ...], query: int, inner: int, key: int | None = None) -> dict[str, tuple[int, int]]:
    """Widths of an attention: names of queries, keys, values and output."""
    key = query if key is None else key
    shapes = ((query, inner), (key, inner), (key, inner), (inner, query))
    return {f"{attention}.{name}" if attention else name: shape for name, shape in zip(names, shapes, strict=True)}


_QKVO, _TO, _TO_QUERY = ("q", "k", "v", "o"), ("to_q", "to_k", "to_v", "to_out.0"), ("to_query", "to_key", "to_value", "out_layer")


def _wan(dim: int, ffn_dim: int, num_blocks: int) -> PublishedModel:
    image = {"cross_attn.k_img": (dim, dim), "cross_attn.v_img": (dim, dim)}
    attention = {**_projections("self_attn", _QKVO, dim, dim), **_projections("cross_attn", _QKVO, dim, dim), **image}
    return PublishedModel("wan", (num_blocks,), ({**attention, "ffn.0": (dim, ffn_dim), "ffn.2": (ffn_dim, dim)},), dim)


def _feed_forward(name: str, dim: int) -> dict[str, tuple[int, int]]:
    return {f"{name}.net.0.proj": (dim, 4 * dim), f"{name}.net.2": (4 * dim, dim)}


def _ltx(dim: int, num_blocks: int, audio_dim: int = 0) -> PublishedModel:
    video = {**_projections("attn1", _TO, dim, dim), **_projections("attn2", _TO, dim, dim), **_feed_forward("ff", dim)}
    audio = {
        **_projections("audio_attn1", _TO, audio_dim, audio_dim),
        **_projections("audio_attn2", _TO, audio_dim, audio_dim),
        **_feed_forward("audio_ff", audio_dim),
        **_projections("audio_to_video_attn", _TO, dim, audio_dim, audio_dim),
        **_projections("video_to_audio_attn", _TO, audio_dim, audio_dim, dim),
    }
    return PublishedModel("ltx2" if audio_dim else "ltx", (num_blocks,), ({**video, **(audio if audio_dim else {})},), dim)


def _hunyuan(dim: int, num_double: int, num_single: int) -> PublishedModel:
    double = {}
    for stream in ("img", "txt"):
        double |= {
            f"{stream}_attn.qkv": (dim, 3 * dim),
            f"{stream}_attn.proj": (dim, dim),
            f"{stream}_mlp.0": (dim, 4 * dim),
            f"{stream}_mlp.2": (4 * dim, dim),
            f"{stream}_mod.lin": (dim, 6 * dim),
        }
    single = {"linear1": (dim, 7 * dim), "linear2": (5 * dim, dim), "modulation.lin": (dim, 3 * dim)}
    return PublishedModel("hunyuan", (num_double, num_single) if num_single else (num_double,), (double, single), dim)


def _cogvideox(dim: int, num_blocks: int) -> PublishedModel:
    widths = {**_projections("", ("q", "k", "v", "attn_out"), dim, dim), "ff_proj": (dim, 4 * dim), "ff_out": (4 * dim, dim)}
    return PublishedModel("cogvideox", (num_blocks,), (widths,), 512)


def _kandinsky(dim: int, num_blocks: int, time_dim: int) -> PublishedModel:
    feed_forward = {"feed_forward.in_layer": (dim, 4 * dim), "feed_forward.out_layer": (4 * dim, dim)}
    attentions = {**_projections("self_attention", _TO_QUERY, dim, dim), **_projections("cross_attention", _TO_QUERY, dim, dim)}
    return PublishedModel("kandinsky5", (num_blocks,), ({**attentions, **feed_forward},), time_dim)


def _minimax(dim: int, inner: int, ffn_dim: int, num_blocks: int, time_dim: int) -> PublishedModel:
    widths = {
        "attn.qkv_proj": (dim, 3 * inner), "attn.out_proj": (inner, dim), "mlp.fc1": (dim, 2 * ffn_dim), "mlp.fc2": (ffn_dim, dim),
        "adaln_proj.linear": (time_dim, 18 * dim),
    }  # fmt: skip
    return PublishedModel("minimax-h3", (num_blocks,), (widths,), time_dim)


PUBLISHED: dict[str, PublishedModel] = {
    "Wan 14B": _wan(5120, 13824, 40),
    "Wan 2.2 5B": _wan(3072, 14336, 30),
    "Wan 2.1 1.3B": _wan(1536, 8960, 30),
    "LTX-Video 2B": _ltx(2048, 28),
    "LTX-Video 13B": _ltx(4096, 48),
    "LTX-2": _ltx(4096, 48, 2048),
    "HunyuanVideo": _hunyuan(3072, 20, 40),
    "HunyuanVideo 1.5": _hunyuan(2048, 54, 0),
    "MiniMax-H3": _minimax(5376, 7168, 14336, 50, 2688),
    "Kandinsky 5 Lite": _kandinsky(1792, 32, 512),
    "Kandinsky 5 Pro": _kandinsky(4096, 60, 1024),
    "CogVideoX 2B": _cogvideox(1920, 30),
    "CogVideoX 5B": _cogvideox(3072, 42),
}
"""By name, as people call them."""
