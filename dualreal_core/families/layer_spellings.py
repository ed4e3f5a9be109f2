"""What ComfyUI, diffusers, the models' authors and trainers call the layers and other weights of a DiT.

ComfyUI's spelling is the left column of every table. diffusers' may be one name, the names of several layers whose outputs the left one
joins, or one whose two halves of outputs stand in the other order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Joined:
    """Layers whose outputs another one joins: `num_equal` equal parts; or 0: each as wide as the layer's input, the last one the rest."""

    names: tuple[str, ...]
    num_equal: int = 3


@dataclass(frozen=True)
class Swapped:
    """A layer whose second half of outputs another one has first."""

    name: str


Spelled = str | Joined | Swapped


@dataclass(frozen=True)
class BlockSpellings:
    """A list of blocks, as ComfyUI and as diffusers call it, and what is in each block.

    Attributes:
        others: further names, with ComfyUI's or diffusers', of several layers where they join these.
        other_paths: further names of the list.
    """

    comfy: str
    diffusers: str
    layers: Mapping[str, Spelled]
    others: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    other_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class FamilySpellings:
    """The blocks of a family, and what stands outside of them."""

    blocks: tuple[BlockSpellings, ...]
    outside: Mapping[str, Spelled]


def _under(prefixes: tuple[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefixes[0]}.{ours}": f"{prefixes[1]}.{theirs}" for ours, theirs in names.items()}


_WAN_ATTENTION = {
    "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "k_img": "add_k_proj", "v_img": "add_v_proj",
    "norm_q": "norm_q", "norm_k": "norm_k", "norm_k_img": "norm_added_k",
}  # fmt: skip
_WAN_LAYERS = {
    **_under(("self_attn", "attn1"), _WAN_ATTENTION),
    **_under(("cross_attn", "attn2"), _WAN_ATTENTION),
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
    "modulation": "scale_shift_table",
}
_WAN_JOINED = {
    "attn1.to_qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn2.to_kv": ("attn2.to_k", "attn2.to_v"),
    "attn2.to_added_kv": ("attn2.add_k_proj", "attn2.add_v_proj"),
}
"""Of diffusers' models whose projections were fused."""
_WAN = FamilySpellings(
    (
        BlockSpellings("blocks", "blocks", _WAN_LAYERS, _WAN_JOINED),
        BlockSpellings(
            "vace_blocks", "vace_blocks", {**_WAN_LAYERS, "before_proj": "proj_in", "after_proj": "proj_out"}, _WAN_JOINED
        ),
    ),
    {
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
        "head.modulation": "scale_shift_table",
        "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
        "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
        "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
        "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
        "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    },
)

_LTX_ATTENTIONS = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")
_LTX = FamilySpellings(
    (
        BlockSpellings(
            "transformer_blocks",
            "transformer_blocks",
            {
                **{f"{attention}.{side}_norm": f"{attention}.norm_{side}" for attention in _LTX_ATTENTIONS for side in "qk"},
                "scale_shift_table_a2v_ca_video": "video_a2v_cross_attn_scale_shift_table",
                "scale_shift_table_a2v_ca_audio": "audio_a2v_cross_attn_scale_shift_table",
            },
            {
                **{f"{attention}.to_qkv": tuple(f"{attention}.to_{side}" for side in "qkv") for attention in _LTX_ATTENTIONS},
                **{f"{attention}.to_kv": tuple(f"{attention}.to_{side}" for side in "kv") for attention in _LTX_ATTENTIONS},
            },
        ),
    ),
    {
        "patchify_proj": "proj_in",
        "audio_patchify_proj": "audio_proj_in",
        **{
            f"{ours}.{layer}": f"{theirs}.{layer}"
            for ours, theirs in {
                "adaln_single": "time_embed",
                "audio_adaln_single": "audio_time_embed",
                "prompt_adaln_single": "prompt_adaln",
                "audio_prompt_adaln_single": "audio_prompt_adaln",
                "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
                "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
                "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
                "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
            }.items()
            for layer in ("emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2", "linear")
        },
    },
)

_HUNYUAN_DOUBLE = {
    "img_attn.qkv": Joined(("attn.to_q", "attn.to_k", "attn.to_v")),
    "img_attn.proj": "attn.to_out.0",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "img_mod.lin": "norm1.linear",
    "txt_attn.qkv": Joined(("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    "txt_attn.proj": "attn.to_add_out",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "txt_mod.lin": "norm1_context.linear",
}
_HUNYUAN_SINGLE = {
    "linear1": Joined(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), num_equal=0),
    "linear2": "proj_out",
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_HUNYUAN_EMBEDDERS = {
    "time_in": ("time_text_embed.timestep_embedder", "time_embed.timestep_embedder"),
    "vector_in": ("time_text_embed.text_embedder",),
    "guidance_in": ("time_text_embed.guidance_embedder",),
    "time_r_in": ("time_embed.timestep_embedder_r",),
    "txt_in.t_embedder": ("context_embedder.time_text_embed.timestep_embedder",),
    "txt_in.c_embedder": ("context_embedder.time_text_embed.text_embedder",),
}
_HUNYUAN = FamilySpellings(
    (
        BlockSpellings(
            "double_blocks",
            "transformer_blocks",
            _HUNYUAN_DOUBLE,
            {
                **{f"{side}_attn_{layer}": f"{side}_attn.{layer}" for side in ("img", "txt") for layer in ("qkv", "proj")},
                **{
                    f"{side}_attn_{whole[0]}_norm": f"{side}_attn.norm.{whole}_norm"
                    for side in ("img", "txt")
                    for whole in ("query", "key")
                },
                **{f"{side}_mlp.fc{number}": f"{side}_mlp.{layer}" for side in ("img", "txt") for number, layer in ((1, 0), (2, 2))},
                **{f"img_attn_{side}": f"attn.to_{side}" for side in "qkv"},
                **{f"txt_attn_{side}": f"attn.add_{side}_proj" for side in "qkv"},
                "attn.to_qkv": "img_attn.qkv",
                "attn.to_added_qkv": "txt_attn.qkv",
                "img_mod.linear": "img_mod.lin",
                "txt_mod.linear": "txt_mod.lin",
            },
        ),
        BlockSpellings(
            "single_blocks",
            "single_transformer_blocks",
            _HUNYUAN_SINGLE,
            {"modulation.linear": "modulation.lin", "q_norm": "norm.query_norm", "k_norm": "norm.key_norm"},
        ),
        BlockSpellings(
            "txt_in.individual_token_refiner.blocks",
            "context_embedder.token_refiner.refiner_blocks",
            {
                "self_attn.qkv": Joined(("attn.to_q", "attn.to_k", "attn.to_v")),
                "self_attn.proj": "attn.to_out.0",
                "mlp.0": "ff.net.0.proj",
                "mlp.2": "ff.net.2",
                "adaLN_modulation.1": "norm_out.linear",
            },
            {"self_attn_qkv": "self_attn.qkv", "self_attn_proj": "self_attn.proj", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2"},
        ),
    ),
    {
        "img_in.proj": "x_embedder.proj",
        "txt_in.input_embedder": "context_embedder.proj_in",
        **{
            f"{ours}.{mine}_layer": f"{path}.linear_{number}"
            for ours, paths in _HUNYUAN_EMBEDDERS.items()
            for path in paths[:1]
            for mine, number in (("in", 1), ("out", 2))
        },
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": Swapped("norm_out.linear"),
        "byt5_in.layernorm": "context_embedder_2.norm",
        **{f"byt5_in.fc{number}": f"context_embedder_2.linear_{number}" for number in (1, 2, 3)},
        "cond_type_embedding": "cond_type_embed",
        "vision_in.proj.0": "image_embedder.norm_in",
        "vision_in.proj.1": "image_embedder.linear_1",
        "vision_in.proj.3": "image_embedder.linear_2",
        "vision_in.proj.4": "image_embedder.norm_out",
    },
)

_COGVIDEOX = FamilySpellings(
    (
        BlockSpellings(
            "blocks",
            "transformer_blocks",
            {
                "q": "attn1.to_q", "k": "attn1.to_k", "v": "attn1.to_v", "attn_out": "attn1.to_out.0", "norm_q": "attn1.norm_q",
                "norm_k": "attn1.norm_k", "ff_proj": "ff.net.0.proj", "ff_out": "ff.net.2",
            },
            {"attn1.to_qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v")},
        ),
    ),
    {
        **{f"time_embedding_linear_{number}": f"time_embedding.linear_{number}" for number in (1, 2)},
        **{f"ofs_embedding_linear_{number}": f"ofs_embedding.linear_{number}" for number in (1, 2)},
    },
)  # fmt: skip

_H3_LAYERS = {
    "attn.qkv_proj": Joined(("attn.to_q", "attn.to_k", "attn.to_v")),
    "attn.out_proj": "attn.to_out.0",
    "attn.q_norm": "attn.norm_q",
    "attn.k_norm": "attn.norm_k",
    "mlp.fc1": Swapped("ff.net.0.proj"),
    "mlp.fc2": "ff.net.2",
}
_H3 = FamilySpellings(
    (
        BlockSpellings("blocks", "transformer_blocks", _H3_LAYERS),
        BlockSpellings("token_refiner.blocks", "token_refiner.refiner_blocks", _H3_LAYERS),
    ),
    {
        "video_patch_proj": "proj_in",
        "audio_patch_proj": "audio_proj_in",
        "condition_proj": "context_embedder",
        "time_embedder.proj_in": "time_embedder.linear_1",
        "time_embedder.proj_out": "time_embedder.linear_2",
        "final_layer.adaln_proj.linear": "norm_out.linear",
        "final_layer.video_out": "proj_out",
        "final_layer.audio_out": "audio_proj_out",
    },
)

_KANDINSKY = FamilySpellings(
    (
        BlockSpellings("visual_transformer_blocks", "visual_transformer_blocks", {}),
        BlockSpellings("text_transformer_blocks", "text_transformer_blocks", {}),
    ),
    {},
)

SPELLINGS: dict[str, FamilySpellings] = {
    "wan": _WAN,
    "ltx": _LTX,
    "ltx2": _LTX,
    "hunyuan": _HUNYUAN,
    "cogvideox": _COGVIDEOX,
    "minimax-h3": _H3,
    "kandinsky5": _KANDINSKY,
}
"""By family."""

OTHER_OUTSIDE: dict[str, dict[str, str]] = {
    "hunyuan": {
        **{f"{ours}.mlp.{layer}": f"{ours}.{mine}_layer" for ours in _HUNYUAN_EMBEDDERS for layer, mine in ((0, "in"), (2, "out"))},
        **{
            f"{path}.linear_{number}": f"{ours}.{mine}_layer"
            for ours, paths in _HUNYUAN_EMBEDDERS.items()
            for path in paths[1:]
            for mine, number in (("in", 1), ("out", 2))
        },
        **{f"txt_in.c_embedder.linear_{number}": f"txt_in.c_embedder.{mine}_layer" for mine, number in (("in", 1), ("out", 2))},
    },
}
"""Further names of what stands outside of blocks, with ComfyUI's."""
