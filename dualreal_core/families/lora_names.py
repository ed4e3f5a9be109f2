"""What LoRA files of other programs call the linear layers of a DiT's blocks, where that is not their path in the DiT."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from . import CANONICAL, family_of, is_linear

Rows = tuple[int, int | None]
"""First and end row of a layer's output, in widths of the tokens; None: its last row."""


@dataclass(frozen=True)
class OtherNames:
    """Names of another program for a block list and for the layers, or rows of fused layers, of its blocks."""

    path: str
    layers: dict[str, str | tuple[str, Rows]]


@dataclass(frozen=True)
class NamedRows:
    """A linear layer, by its path in the DiT, or some of its output rows."""

    path: str
    first_row: int
    num_rows: int
    is_whole: bool = True


_Q, _K, _V, _MLP = (0, 1), (1, 2), (2, 3), (3, None)
OTHER_NAMES: dict[str, dict[str, tuple[OtherNames, ...]]] = {
    "hunyuan": {
        "double_blocks": (
            OtherNames(
                "transformer_blocks",
                {
                    "attn.to_q": ("img_attn.qkv", _Q),
                    "attn.to_k": ("img_attn.qkv", _K),
                    "attn.to_v": ("img_attn.qkv", _V),
                    "attn.to_out.0": "img_attn.proj",
                    "attn.add_q_proj": ("txt_attn.qkv", _Q),
                    "attn.add_k_proj": ("txt_attn.qkv", _K),
                    "attn.add_v_proj": ("txt_attn.qkv", _V),
                    "attn.to_add_out": "txt_attn.proj",
                    "ff.net.0.proj": "img_mlp.0",
                    "ff.net.2": "img_mlp.2",
                    "ff_context.net.0.proj": "txt_mlp.0",
                    "ff_context.net.2": "txt_mlp.2",
                    "norm1.linear": "img_mod.lin",
                    "norm1_context.linear": "txt_mod.lin",
                },
            ),
            OtherNames(
                "double_blocks",
                {
                    "img_attn_qkv": "img_attn.qkv",
                    "img_attn_proj": "img_attn.proj",
                    "txt_attn_qkv": "txt_attn.qkv",
                    "txt_attn_proj": "txt_attn.proj",
                    "img_mlp.fc1": "img_mlp.0",
                    "img_mlp.fc2": "img_mlp.2",
                    "txt_mlp.fc1": "txt_mlp.0",
                    "txt_mlp.fc2": "txt_mlp.2",
                    "img_mod.linear": "img_mod.lin",
                    "txt_mod.linear": "txt_mod.lin",
                },
            ),
        ),
        "single_blocks": (
            OtherNames(
                "single_transformer_blocks",
                {
                    "attn.to_q": ("linear1", _Q),
                    "attn.to_k": ("linear1", _K),
                    "attn.to_v": ("linear1", _V),
                    "proj_mlp": ("linear1", _MLP),
                    "proj_out": "linear2",
                    "norm.linear": "modulation.lin",
                },
            ),
            OtherNames("single_blocks", {"modulation.linear": "modulation.lin"}),
        ),
    },
}
"""By family and path of a block list in it: diffusers and the model's authors."""

PER_SAMPLE_LAYERS: dict[str, tuple[str, ...]] = {
    "cogvideox": ("norm1.linear", "norm2.linear"),
    "minimax-h3": ("adaln_proj.linear",),
    "kandinsky5": ("visual_modulation.out_layer",),
}
"""By family, linear layers of blocks that read no tokens but vectors of a whole sample, (B, E): adapters cannot act there."""


def lora_names(transformer: nn.Module) -> dict[str, NamedRows]:
    """Every name, without prefix, by which LoRA files may call a linear layer of the DiT's blocks."""
    names: dict[str, NamedRows] = {}
    family = family_of(transformer)
    for block_list, canonical in zip(family.block_lists, CANONICAL[family.name].block_lists, strict=False):
        namings = OTHER_NAMES.get(family.name, {}).get(canonical.path, ())
        for index, block in enumerate(transformer.get_submodule(block_list.path)):
            block_path = f"{block_list.path}.{index}"
            own = {path: module for path, module in block.named_modules() if is_linear(module)}
            for path, linear in own.items():
                names[f"{block_path}.{path}"] = NamedRows(f"{block_path}.{path}", 0, linear.out_features)
            for layer, path in family.layer_paths.items():
                if path in own:
                    names[f"{canonical.path}.{index}.{layer}"] = NamedRows(f"{block_path}.{path}", 0, own[path].out_features)
            for naming in namings:
                for layer, target in naming.layers.items():
                    path, (first, end) = (target, (0, None)) if isinstance(target, str) else target
                    if path in own:
                        width, last = own[path].in_features, own[path].out_features
                        first_row, end_row = first * width, last if end is None else end * width
                        rows = NamedRows(f"{block_path}.{path}", first_row, end_row - first_row, end_row - first_row == last)
                        names[f"{naming.path}.{index}.{layer}"] = rows
    return names
