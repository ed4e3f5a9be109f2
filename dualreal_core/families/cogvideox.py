"""CogVideoX: joint text and video tokens, v-prediction."""

from .description import FamilyDescription, Site

COGVIDEOX = FamilyDescription(
    name="cogvideox",
    class_name="CogVideoXTransformer3DModel",
    blocks="transformer_blocks",
    sites=(
        Site("attn", "attn1", ("hidden_states", "encoder_hidden_states"), ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")),
        Site("ff", "ff", ("hidden_states",), ("ff.net.0.proj", "ff.net.2")),
    ),
    block_streams=("hidden_states", "encoder_hidden_states"),
    controller_streams=("encoder_hidden_states", "hidden_states"),
    time_embedding="time_embedding",
)
