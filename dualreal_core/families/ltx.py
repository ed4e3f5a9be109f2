"""LTX-Video in ComfyUI: video tokens with cross-attention to text, flow matching; blocks overwrite their input."""

from .description import BlockList, FamilyDescription, Site

COMFY_LTX = FamilyDescription(
    name="ltx",
    package="comfy",
    class_name="LTXVModel",
    block_lists=(
        BlockList(
            "transformer_blocks",
            (
                Site("attn", "attn1", ("x",), ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")),
                Site("ff", "ff", ("x",), ("ff.net.0.proj", "ff.net.2")),
            ),
        ),
    ),
    block_streams=("x",),
    controller_streams=("x",),
    time_embedding="adaln_single",
    time_linear="adaln_single.emb.timestep_embedder.linear_2",
    patch_layer="patchify_proj",
    text_layer="caption_projection.linear_1",
    needs_text_mask=True,
    time_embedding_output=1,
    sequences={"ff": "ff.net"},
    unlike=("LTXAVModel",),
    changes_in_place=True,
)
