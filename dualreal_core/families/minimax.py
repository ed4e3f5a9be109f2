"""MiniMax-H3 in ComfyUI: text, references, sound and video of one sample as one sequence of tokens; flow matching.

Blocks have a row of the time embedding for each distinct timestep, the smallest first, and timesteps fall with noise. Checkpoints in the
curve form look the embedding up in a table, so that no module makes it.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from .description import BlockList, FamilyDescription, Site

_NUM_MODALITIES, _AUDIO = 3, 2
_SEGMENTS = "mod_segments", 2
"""Name and position of the blocks' argument that says what their tokens are: (begin, end, row of the modulation, or one for each)."""


def _swiglu(feed_forward: nn.Module, x: Tensor) -> Tensor:
    gate, up = feed_forward.fc1(x).chunk(2, dim=-1)
    return feed_forward.fc2(functional.silu(gate) * up)


def _audio_tokens(args: tuple, kwargs: Mapping[str, object]) -> list[tuple[int, int]]:
    name, position = _SEGMENTS
    segments = kwargs[name] if name in kwargs else args[position]
    rows = [(begin, end, row if isinstance(row, int) else int(row[0])) for begin, end, row in segments if end > begin]
    return [(begin, end) for begin, end, row in rows if row % _NUM_MODALITIES == _AUDIO]


COMFY_MINIMAX_H3 = FamilyDescription(
    name="minimax-h3",
    package="comfy",
    class_name="MiniMaxH3Model",
    block_lists=(
        BlockList(
            "blocks",
            (
                Site("attn", "attn", ("x",), ("attn.qkv_proj", "attn.out_proj")),
                Site("ff", "mlp", ("x",), ("mlp.fc1", "mlp.fc2")),
            ),
        ),
    ),
    block_streams=("x",),
    controller_streams=("x",),
    time_embedding="video_patch_proj",
    time_linear="blocks.0.adaln_proj.linear",
    patch_layer="video_patch_proj",
    text_layer="condition_proj",
    text_argument=("context", 2),
    time_argument=("t_emb", 1),
    unfused={"mlp": _swiglu},
    is_packed=True,
    audio_tokens=_audio_tokens,
    audio_weights=r"audio_patch_proj|audio_out",
    changes_in_place=True,
)
