"""Stand-ins for published models have the names and sizes of the models."""

from __future__ import annotations

import diffusers
import pytest
import torch
from torch import nn

from dualreal_core.families import DESCRIPTIONS, family_of
from dualreal_core.families.layer_naming import Naming
from dualreal_core.families.published_models import PUBLISHED
from dualreal_core.method.pair import base_sizes, new_pair

CLASSES = {
    "wan": "WanTransformer3DModel", "ltx": "LTXVideoTransformer3DModel", "ltx2": "LTX2VideoTransformer3DModel",
    "hunyuan": "HunyuanVideoTransformer3DModel", "minimax-h3": "MiniMaxH3Transformer3DModel", "kandinsky5": "Kandinsky5Transformer3DModel",
    "cogvideox": "CogVideoXTransformer3DModel",
}  # fmt: skip
SETTINGS: dict[str, dict[str, object]] = {
    "Wan 14B": {},
    "Wan 2.2 5B": {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30},
    "Wan 2.1 1.3B": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "LTX-Video 2B": {},
    "LTX-Video 13B": {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
    "LTX-2": {},
    "HunyuanVideo": {},
    "HunyuanVideo 1.5": {},
    "MiniMax-H3": {},
    "Kandinsky 5 Lite": {"model_dim": 1792, "ff_dim": 7168},
    "Kandinsky 5 Pro": {"model_dim": 4096, "ff_dim": 16384, "num_visual_blocks": 60, "time_dim": 1024},
    "CogVideoX 2B": {},
    "CogVideoX 5B": {"num_attention_heads": 48, "num_layers": 42},
}


def in_diffusers(name: str) -> nn.Module:
    """The DiT of that name, without weights."""
    family = "HunyuanVideo15Transformer3DModel" if name == "HunyuanVideo 1.5" else CLASSES[PUBLISHED[name].family]
    with torch.device("meta"):
        return getattr(diffusers, family)(**SETTINGS[name])


BRIEF = ("Wan 2.1 1.3B", "LTX-Video 2B", "MiniMax-H3", "Kandinsky 5 Lite")
NAMES = [pytest.param(name, marks=() if name in BRIEF else pytest.mark.thorough) for name in PUBLISHED]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_the_size_that_it_has_in_diffusers(name: str) -> None:
    model, other = PUBLISHED[name], in_diffusers(name)
    names, canonical = Naming(model.family, "diffusers"), _canonical(model.family)
    for index, (number, widths) in enumerate(zip(model.num_blocks, model.widths, strict=False)):
        blocks = other.get_submodule(names.block_list(index))
        assert len(blocks) == number
        for path, (inputs, outputs) in widths.items():
            parts = [_linear(blocks[0], part.path) for part in names.parts(index, canonical.get(path, path))]
            if parts == [None] and path.endswith(("k_img", "v_img", "adaln_proj.linear")):
                continue  # of image to video alone
            assert {part.in_features for part in parts} == {inputs}, path
            assert sum(part.out_features for part in parts) == outputs, path


def _canonical(family: str) -> dict[str, str]:
    """The family's name of a layer by ComfyUI's."""
    described = next(one for one in DESCRIPTIONS if (one.name, one.package) == (family, "comfy"))
    return {path: layer for layer, path in described.layer_paths.items()}


def _linear(block: nn.Module, path: str) -> nn.Module | None:
    try:
        return block.get_submodule(path)
    except AttributeError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_can_be_made_for_a_stand_in(name: str) -> None:
    model, stand_in = PUBLISHED[name], PUBLISHED[name].stand_in()
    assert family_of(stand_in) is model.description
    sizes = base_sizes(stand_in)
    assert (sizes["num_blocks"], sizes["time_dim"]) == (sum(model.num_blocks), model.time_dim)
    with torch.device("meta"):
        pair = new_pair(stand_in, identity_kind="lora", motion_kind="lora", has_controller=False)
    assert len(pair.sides["identity"]) >= 4 * sizes["num_blocks"] or model.family in ("hunyuan", "minimax-h3")
