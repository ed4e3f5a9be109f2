"""HunyuanVideo in ComfyUI: double blocks with a stream each for video and text, then single blocks on both joined."""

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
    pooled_layer="vector_in.in_layer",
    variants={16: "text to video", 32: "image to video", 33: "image to video"},
    changes_in_place=True,
)
