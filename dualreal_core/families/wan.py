"""Wan 2.1: video tokens with cross-attention to text, flow matching."""

from .description import FamilyDescription, Site

WAN = FamilyDescription(
    name="wan",
    class_name="WanTransformer3DModel",
    blocks="blocks",
    sites=(
        Site("attn", "attn1", ("hidden_states",), ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")),
        Site("ff", "ffn", ("hidden_states",), ("ffn.net.0.proj", "ffn.net.2")),
    ),
    block_streams=("hidden_states",),
    controller_streams=("hidden_states",),
    time_embedding="condition_embedder",
    time_embedding_output=0,
)
