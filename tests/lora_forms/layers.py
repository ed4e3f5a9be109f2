"""Layers of tiny models that the forms are of, by ComfyUI's names, and what diffusers calls them.

Taken from the state dicts of both and from the converters of diffusers, apart from the tables of the pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

WAN = ("blocks.0.self_attn.q", "blocks.1.self_attn.o", "blocks.1.cross_attn.k", "blocks.2.ffn.0", "blocks.2.ffn.2")
COGVIDEOX = ("blocks.0.q", "blocks.1.attn_out", "blocks.1.k", "blocks.2.ff_proj", "blocks.2.ff_out")
LTX = (
    "transformer_blocks.0.attn1.to_q",
    "transformer_blocks.1.attn2.to_out.0",
    "transformer_blocks.2.ff.net.0.proj",
    "transformer_blocks.2.ff.net.2",
)
LTX2_SOUND = (
    "transformer_blocks.0.audio_attn1.to_q", "transformer_blocks.1.audio_to_video_attn.to_k",
    "transformer_blocks.1.video_to_audio_attn.to_out.0", "transformer_blocks.2.audio_ff.net.0.proj",
)  # fmt: skip
HUNYUAN_DOUBLE = ("double_blocks.0.img_attn.qkv", "double_blocks.1.txt_attn.proj", "double_blocks.1.img_mlp.0", "double_blocks.2.txt_mlp.2")
HUNYUAN = (*HUNYUAN_DOUBLE, "single_blocks.0.linear1", "single_blocks.1.linear2")
KANDINSKY = tuple(
    f"visual_transformer_blocks.{layer}"
    for layer in ("0.self_attention.to_query", "1.cross_attention.to_key", "1.self_attention.out_layer", "2.feed_forward.in_layer")
)
H3 = ("blocks.0.attn.qkv_proj", "blocks.1.attn.out_proj", "blocks.1.mlp.fc1", "blocks.2.mlp.fc2")
OF_BASE: Mapping[str, tuple[str, ...]] = {
    "wan": WAN, "wan21_i2v": WAN, "wan22_t2v": WAN, "wan_vace": WAN, "cogvideox": COGVIDEOX, "ltxv": LTX, "ltx20": (*LTX, *LTX2_SOUND),
    "hunyuan": HUNYUAN, "hunyuan15": HUNYUAN_DOUBLE, "kandinsky5": KANDINSKY, "h3": H3,
}  # fmt: skip

_WAN_NAMES = {
    "self_attn.norm": "attn1.norm", "cross_attn.norm": "attn2.norm", "self_attn.": "attn1.to_", "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj", "cross_attn.": "attn2.to_", "to_o": "to_out.0", "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2", "head.head": "proj_out", "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2", "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1", "text_embedding.2": "condition_embedder.text_embedder.linear_2",
}  # fmt: skip
_COGVIDEOX_NAMES = {
    "blocks.": "transformer_blocks.", ".q": ".attn1.to_q", ".k": ".attn1.to_k", ".v": ".attn1.to_v", ".attn_out": ".attn1.to_out.0",
    ".ff_proj": ".ff.net.0.proj", ".ff_out": ".ff.net.2",
}  # fmt: skip
_LTX_NAMES = {"patchify_proj": "proj_in", "adaln_single": "time_embed", "q_norm": "norm_q", "k_norm": "norm_k"}


@dataclass(frozen=True)
class Part:
    """A layer of diffusers: the ComfyUI layer that computes it, which rows there, and in which order where it is another."""

    name: str
    layer: str
    rows: tuple[int, int] | None = None
    order: torch.Tensor | None = None


def renamed(layer: str, names: Mapping[str, str]) -> str:
    """A name with parts of it exchanged, in the order of the table."""
    for old, new in names.items():
        layer = layer.replace(old, new)
    return layer


def wan_name(layer: str) -> str:
    """What diffusers calls a layer of Wan."""
    return renamed(layer, _WAN_NAMES)


def cogvideox_name(layer: str) -> str:
    """What diffusers calls a layer of CogVideoX."""
    return renamed(layer, _COGVIDEOX_NAMES)


def ltx_name(layer: str) -> str:
    """What diffusers calls a layer of LTX-Video."""
    return renamed(layer, _LTX_NAMES)


def hunyuan_parts(width: int, mlp_width: int, has_single: bool = True) -> list[Part]:
    """Layers of HunyuanVideo in diffusers, which has q, k and v apart. width: of the tokens."""
    double = "transformer_blocks"
    parts = [
        Part(f"{double}.0.attn.to_q", "double_blocks.0.img_attn.qkv", (0, width)),
        Part(f"{double}.0.attn.to_v", "double_blocks.0.img_attn.qkv", (2 * width, width)),
        Part(f"{double}.1.attn.add_k_proj", "double_blocks.1.txt_attn.qkv", (width, width)),
        Part(f"{double}.1.attn.to_out.0", "double_blocks.1.img_attn.proj"),
        Part(f"{double}.1.attn.to_add_out", "double_blocks.1.txt_attn.proj"),
        Part(f"{double}.2.ff.net.0.proj", "double_blocks.2.img_mlp.0"),
        Part(f"{double}.2.ff_context.net.2", "double_blocks.2.txt_mlp.2"),
    ]
    if has_single:
        single = "single_transformer_blocks"
        parts += [
            Part(f"{single}.0.attn.to_k", "single_blocks.0.linear1", (width, width)),
            Part(f"{single}.0.proj_mlp", "single_blocks.0.linear1", (3 * width, mlp_width)),
            Part(f"{single}.1.proj_out", "single_blocks.1.linear2"),
        ]
    return parts


def h3_parts(width: int, ffn_width: int, gate_first: bool = False) -> list[Part]:
    """Layers of MiniMax-H3 in diffusers, whose SwiGLU has its value first and its gate second, unless `gate_first`.

    width: of q; ffn_width: of the gate.
    """
    swapped = None if gate_first else torch.cat([torch.arange(ffn_width, 2 * ffn_width), torch.arange(ffn_width)])
    return [
        Part("transformer_blocks.0.attn.to_q", "blocks.0.attn.qkv_proj", (0, width)),
        Part("transformer_blocks.0.attn.to_k", "blocks.0.attn.qkv_proj", (width, width)),
        Part("transformer_blocks.1.attn.to_v", "blocks.1.attn.qkv_proj", (2 * width, width)),
        Part("transformer_blocks.1.attn.to_out.0", "blocks.1.attn.out_proj"),
        Part("transformer_blocks.1.ff.net.0.proj", "blocks.1.mlp.fc1", order=swapped),
        Part("transformer_blocks.2.ff.net.2", "blocks.2.mlp.fc2"),
    ]


def flat(name: str) -> str:
    """As kohya's scripts write paths."""
    return name.replace(".", "_")
