"""Kandinsky 5 in ComfyUI: video tokens with cross-attention to text, flow matching. Pairs act in the blocks of the video alone."""

from .description import BlockList, FamilyDescription, Site


def _projections(attention: str) -> tuple[str, ...]:
    return tuple(f"{attention}.{layer}" for layer in ("to_query", "to_key", "to_value", "out_layer"))


COMFY_KANDINSKY5 = FamilyDescription(
    name="kandinsky5",
    package="comfy",
    class_name="Kandinsky5",
    block_lists=(
        BlockList(
            "visual_transformer_blocks",
            (
                Site("attn", "self_attention", ("x",), _projections("self_attention")),
                Site("ff", "feed_forward", ("x",), ("feed_forward.in_layer", "feed_forward.out_layer")),
            ),
            other_layers=_projections("cross_attention"),
        ),
    ),
    block_streams=("visual_embed",),
    controller_streams=("visual_embed",),
    time_embedding="time_embeddings",
    time_linear="time_embeddings.out_layer",
    patch_layer="visual_embeddings.in_layer",
    text_layer="text_embeddings.in_layer",
    text_argument=("context", 2),
    pooled_layer="pooled_text_embeddings.in_layer",
)
