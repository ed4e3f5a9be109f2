"""LTX-Video: video tokens with cross-attention to text, flow matching; in ComfyUI blocks overwrite their input.

LTX-2 beside it (2.0, 2.3 and 2.5) has a stream of video and one of sound, each of which also attends to the other.
"""

from dataclasses import replace

from torch import Tensor, nn

from .description import BlockList, FamilyDescription, Site


def _projections(attention: str) -> tuple[str, ...]:
    return tuple(f"{attention}.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0"))


def _one_by_one(feed_forward: nn.Module, x: Tensor) -> Tensor:
    return nn.Sequential.forward(feed_forward.net, x)


_FEED_FORWARD = ("net.0.proj", "net.2")
_ATTENTION_SITE = Site("attn", "attn1", ("x",), _projections("attn1"))
_FEED_FORWARD_SITE = Site("ff", "ff", ("x",), tuple(f"ff.{layer}" for layer in _FEED_FORWARD))

COMFY_LTX = FamilyDescription(
    name="ltx",
    package="comfy",
    class_name="LTXVModel",
    block_lists=(
        BlockList("transformer_blocks", (_ATTENTION_SITE, _FEED_FORWARD_SITE), other_layers=_projections("attn2")),
    ),
    block_streams=("x",),
    controller_streams=("x",),
    time_embedding="adaln_single",
    time_linear="adaln_single.emb.timestep_embedder.linear_2",
    patch_layer="patchify_proj",
    text_layer="caption_projection.linear_1",
    text_argument=("context", 2),
    needs_text_mask=True,
    time_embedding_output=1,
    unfused={"ff": _one_by_one},
    changes_in_place=True,
)

AUDIO_MODULES = {
    "audio_attn1": True,
    "audio_attn2": True,
    "audio_ff": True,
    "video_to_audio_attn": True,
    "audio_to_video_attn": False,
}
AUDIO_WEIGHTS = r"(^|[.])audio_(?!to_video)|video_to_audio|_ca_audio|v2a_gate"

COMFY_LTX2 = FamilyDescription(
    name="ltx2",
    package="comfy",
    class_name="LTXAVModel",
    block_lists=(
        BlockList(
            "transformer_blocks",
            (_ATTENTION_SITE, _FEED_FORWARD_SITE),
            other_layers=(
                *_projections("attn2"),
                *(layer for module in AUDIO_MODULES if module != "audio_ff" for layer in _projections(module)),
                *(f"audio_ff.{layer}" for layer in _FEED_FORWARD),
            ),
        ),
    ),
    block_streams=("x.0",),
    controller_streams=("x.0",),
    time_embedding="adaln_single",
    time_linear="adaln_single.emb.timestep_embedder.linear_2",
    patch_layer="patchify_proj",
    text_layer="caption_projection.linear_1",
    text_argument=("context", 2),
    time_embedding_output=1,
    unfused={"ff": _one_by_one, "audio_ff": _one_by_one},
    audio_modules=AUDIO_MODULES,
    audio_weights=AUDIO_WEIGHTS,
    changes_in_place=True,
)

_HERE = {
    "package": "diffusers",
    "block_streams": ("hidden_states",),
    "controller_streams": ("hidden_states",),
    "time_embedding": "time_embed",
    "time_linear": "time_embed.emb.timestep_embedder.linear_2",
    "patch_layer": "proj_in",
    "unfused": {},
    "changes_in_place": False,
}


def _in_diffusers(family: FamilyDescription, class_name: str, text_position: int) -> FamilyDescription:
    """The same layers under the same names, around which some are called otherwise."""
    sites = tuple(replace(site, streams=("hidden_states",)) for site in family.block_lists[0].sites)
    block_lists, text_argument = (replace(family.block_lists[0], sites=sites),), ("encoder_hidden_states", text_position)
    return replace(family, class_name=class_name, block_lists=block_lists, text_argument=text_argument, **_HERE)


LTX = _in_diffusers(COMFY_LTX, "LTXVideoTransformer3DModel", 1)
LTX2 = _in_diffusers(COMFY_LTX2, "LTX2VideoTransformer3DModel", 2)
