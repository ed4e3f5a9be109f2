"""HunyuanVideo: double blocks with a stream each for video and text, then single blocks on both joined; version 1.5 has no single ones.

Its layers are named as in ComfyUI, where queries, keys and values are one layer; diffusers computes these one by one.
"""

from dataclasses import replace

from .description import BlockList, FamilyDescription, Site

COMFY_HUNYUAN = FamilyDescription(
    name="hunyuan",
    package="comfy",
    class_name="HunyuanVideo",
    block_lists=(
        BlockList(
            "double_blocks",
            (
                Site("attn", "img_attn.qkv", ("input",), ("img_attn.qkv", "img_attn.proj"), writes="img_attn.proj"),
                Site("attn_text", "txt_attn.qkv", ("input",), ("txt_attn.qkv", "txt_attn.proj"), writes="txt_attn.proj"),
                Site("ff", "img_mlp", ("input",), ("img_mlp.0", "img_mlp.2")),
                Site("ff_text", "txt_mlp", ("input",), ("txt_mlp.0", "txt_mlp.2")),
            ),
        ),
        # attention and feed-forward of a single block share both layers
        BlockList("single_blocks", (Site("attn", "linear1", ("input",), ("linear1", "linear2"), writes="linear2"),)),
    ),
    block_streams=("img", "txt"),
    controller_streams=("txt", "img"),
    time_embedding="time_in",
    time_linear="time_in.out_layer",
    patch_layer="img_in.proj",
    text_layer="txt_in.input_embedder",
    text_argument=("context", 2),
    pooled_layer="vector_in.in_layer",
    variants={16: "text to video", 32: "image to video", 33: "image to video"},
    changes_in_place=True,
)

_DOUBLE_BLOCKS = BlockList(
    "transformer_blocks",
    (
        Site("attn", "attn.to_q", ("input",), ("img_attn.qkv", "img_attn.proj"), writes="attn.to_out.0"),
        Site("attn_text", "attn.add_q_proj", ("input",), ("txt_attn.qkv", "txt_attn.proj"), writes="attn.to_add_out"),
        Site("ff", "ff", ("hidden_states",), ("img_mlp.0", "img_mlp.2")),
        Site("ff_text", "ff_context", ("hidden_states",), ("txt_mlp.0", "txt_mlp.2")),
    ),
)

HUNYUAN = replace(
    COMFY_HUNYUAN,
    package="diffusers",
    class_name="HunyuanVideoTransformer3DModel",
    block_lists=(
        _DOUBLE_BLOCKS,
        BlockList("single_transformer_blocks", (Site("attn", "proj_mlp", ("input",), ("linear1", "linear2"), writes="proj_out"),)),
    ),
    block_streams=("hidden_states", "encoder_hidden_states"),
    controller_streams=("encoder_hidden_states", "hidden_states"),
    time_embedding="time_text_embed.timestep_embedder",
    time_linear="time_text_embed.timestep_embedder.linear_2",
    patch_layer="x_embedder.proj",
    text_layer="context_embedder.proj_in",
    text_argument=("encoder_hidden_states", 2),
    pooled_layer="time_text_embed.text_embedder.linear_1",
    needs_text_mask=True,
    layer_paths={
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn.proj": "attn.to_out.0",
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn.proj": "attn.to_add_out",
        "img_mlp.0": "ff.net.0.proj",
        "img_mlp.2": "ff.net.2",
        "txt_mlp.0": "ff_context.net.0.proj",
        "txt_mlp.2": "ff_context.net.2",
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": "proj_out",
        "img_mod.lin": "norm1.linear",
        "txt_mod.lin": "norm1_context.linear",
        "modulation.lin": "norm.linear",
    },
    changes_in_place=False,
)

HUNYUAN_15 = replace(
    HUNYUAN,
    class_name="HunyuanVideo15Transformer3DModel",
    block_lists=(_DOUBLE_BLOCKS,),
    time_embedding="time_embed.timestep_embedder",
    time_linear="time_embed.timestep_embedder.linear_2",
    pooled_layer="",
    variants={65: "text to video, image to video"},
)
