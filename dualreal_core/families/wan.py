"""Wan 2.1 and 2.2: video tokens with cross-attention to text, flow matching.

Wan Animate 2 runs each block twice in a call, once on the tokens of a pose video whose keys and values the video reads, and by methods
of their own. It, and the models that follow sound, overwrite tokens between blocks.
"""

from dataclasses import replace

from torch import nn

from .description import BlockList, FamilyDescription, Site

_ATTENTION_LAYERS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_FEED_FORWARD_LAYERS = ("ffn.net.0.proj", "ffn.net.2")
_CROSS_ATTENTION_LAYERS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "attn2.add_k_proj", "attn2.add_v_proj")
_VARIANTS = {16: "text to video", 36: "image to video"}
_EXPERT_BOUNDARIES = {16: 0.875, 36: 0.9}

WAN = FamilyDescription(
    name="wan",
    package="diffusers",
    class_name="WanTransformer3DModel",
    block_lists=(
        BlockList(
            "blocks",
            (
                Site("attn", "attn1", ("hidden_states",), _ATTENTION_LAYERS),
                Site("ff", "ffn", ("hidden_states",), _FEED_FORWARD_LAYERS),
            ),
            other_layers=_CROSS_ATTENTION_LAYERS,
        ),
    ),
    block_streams=("hidden_states",),
    controller_streams=("hidden_states",),
    time_embedding="condition_embedder",
    time_linear="condition_embedder.time_embedder.linear_2",
    time_embedding_output=0,
    patch_layer="patch_embedding",
    text_layer="condition_embedder.text_embedder.linear_1",
    text_argument=("encoder_hidden_states", 2),
    variants=_VARIANTS,
    expert_boundaries=_EXPERT_BOUNDARIES,
)

WAN_LIKE = tuple(
    replace(WAN, class_name=name) for name in ("WanVACETransformer3DModel", "WanAnimateTransformer3DModel", "SkyReelsV2Transformer3DModel")
)
"""Classes with the same blocks, among which stand others: pairs act in those of the video alone."""

COMFY_WAN = FamilyDescription(
    name="wan",
    package="comfy",
    class_name="WanModel",
    block_lists=(
        BlockList(
            "blocks",
            (
                Site("attn", "self_attn", ("x",), _ATTENTION_LAYERS),
                Site("ff", "ffn", ("x",), _FEED_FORWARD_LAYERS),
            ),
            other_layers=_CROSS_ATTENTION_LAYERS,
        ),
    ),
    block_streams=("x",),
    controller_streams=("x",),
    time_embedding="time_embedding",
    time_linear="time_embedding.2",
    patch_layer="patch_embedding",
    text_layer="text_embedding.0",
    text_argument=("context", 2),
    variants=_VARIANTS,
    expert_boundaries=_EXPERT_BOUNDARIES,
    layer_paths={
        "attn1.to_q": "self_attn.q",
        "attn1.to_k": "self_attn.k",
        "attn1.to_v": "self_attn.v",
        "attn1.to_out.0": "self_attn.o",
        "attn2.to_q": "cross_attn.q",
        "attn2.to_k": "cross_attn.k",
        "attn2.to_v": "cross_attn.v",
        "attn2.to_out.0": "cross_attn.o",
        "attn2.add_k_proj": "cross_attn.k_img",
        "attn2.add_v_proj": "cross_attn.v_img",
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
    },
    unfused={"ffn": nn.Sequential.forward},
)

COMFY_WAN_ANIMATE2 = replace(
    COMFY_WAN,
    class_name="WanAnimate2Model",
    controller_streams=(),
    first_tokens="patch_embedding",
    methods={"": ("forward_gen", "forward_pose", "kv_from_input"), "self_attn": ("forward_gen", "forward_pose")},
    changes_in_place=True,
)
COMFY_WAN_S2V = replace(COMFY_WAN, class_name="WanModel_S2V", changes_in_place=True)
COMFY_WAN_DANCER = replace(COMFY_WAN, class_name="WanDancerModel", changes_in_place=True)
