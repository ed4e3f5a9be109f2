"""CogVideoX: joint text and video tokens, v-prediction. In ComfyUI both streams run as one sequence, text first."""

from dataclasses import replace

from .description import BlockList, FamilyDescription, Site

_ATTENTION_LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_FEED_FORWARD_LAYERS = ("ff.net.0.proj", "ff.net.2")

COGVIDEOX = FamilyDescription(
    name="cogvideox",
    package="diffusers",
    class_name="CogVideoXTransformer3DModel",
    block_lists=(
        BlockList(
            "transformer_blocks",
            (
                Site("attn", "attn1", ("hidden_states", "encoder_hidden_states"), _ATTENTION_LAYERS),
                Site("ff", "ff", ("hidden_states",), _FEED_FORWARD_LAYERS),
            ),
        ),
    ),
    block_streams=("hidden_states", "encoder_hidden_states"),
    controller_streams=("encoder_hidden_states", "hidden_states"),
    time_embedding="time_embedding",
    time_linear="time_embedding.linear_2",
    patch_layer="patch_embed.proj",
    text_layer="patch_embed.text_proj",
    text_argument=("encoder_hidden_states", 1),
    variants={16: "text to video", 32: "image to video", 128: "text to video", 256: "image to video"},
)

COMFY_COGVIDEOX = replace(
    COGVIDEOX,
    package="comfy",
    block_lists=(
        BlockList(
            "blocks",
            (
                Site("attn", "q", ("input",), _ATTENTION_LAYERS, writes="attn_out"),
                Site("ff", "ff_proj", ("input",), _FEED_FORWARD_LAYERS, writes="ff_out"),
            ),
        ),
    ),
    time_embedding="time_embedding_linear_2",
    time_linear="time_embedding_linear_2",
    text_argument=("context", 2),
    layer_paths={
        "attn1.to_q": "q",
        "attn1.to_k": "k",
        "attn1.to_v": "v",
        "attn1.to_out.0": "attn_out",
        "ff.net.0.proj": "ff_proj",
        "ff.net.2": "ff_out",
    },
)
