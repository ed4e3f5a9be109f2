"""The same weights and the same pair in ComfyUI and in diffusers, each in a Python of its own: one output."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import torch
from comfy_host import ComfyHost
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.loaders import single_file_utils
from parity_models import CHANNELS, FORMS, LATENTS, MODELS, NUM_BLOCKS, STAGE, TEXT_DIM, inputs
from safetensors.torch import load_file
from torch import nn

from dualreal_core.bases.folder_layouts import cogvideox_predict, wan_predict
from dualreal_core.bases.hunyuan_folders import hunyuan_15_predict, hunyuan_predict
from dualreal_core.bases.ltx_folders import ltx2_predict, ltx_predict
from dualreal_core.bases.texts import joined
from dualreal_core.families import family_of
from dualreal_core.families.base_record import base_difference, base_record
from dualreal_core.families.cogvideox import COMFY_COGVIDEOX
from dualreal_core.method.attach import Attachment
from dualreal_core.storage import load_pair

HERE = Path(__file__).parent
Weights = dict[str, torch.Tensor]
IN_AND_OUT = {"in_channels": CHANNELS, "out_channels": CHANNELS}
LTX = {**IN_AND_OUT, "num_attention_heads": 4, "attention_head_dim": 16, "cross_attention_dim": 64, "num_layers": NUM_BLOCKS}
HUNYUAN = {"num_attention_heads": 2, "attention_head_dim": 32, "num_layers": NUM_BLOCKS, "text_embed_dim": TEXT_DIM}
HUNYUAN_NAMES = (
    (r"^img_in\.", "x_embedder."),
    (r"^vector_in\.in_layer", "time_text_embed.text_embedder.linear_1"),
    (r"^vector_in\.out_layer", "time_text_embed.text_embedder.linear_2"),
    (r"^guidance_in\.", "time_text_embed.guidance_embedder."),
    (r"^byt5_in\.layernorm", "context_embedder_2.norm"),
    (r"^byt5_in\.fc", "context_embedder_2.linear_"),
    (r"^cond_type_embedding", "cond_type_embed"),
    (r"^vision_in\.proj\.0", "image_embedder.norm_in"),
    (r"^vision_in\.proj\.1", "image_embedder.linear_1"),
    (r"^vision_in\.proj\.3", "image_embedder.linear_2"),
    (r"^vision_in\.proj\.4", "image_embedder.norm_out"),
    (r"^final_layer\.linear", "proj_out"),
    (r"^final_layer\.adaLN_modulation\.1", "norm_out.linear"),
    (r"^txt_in\.input_embedder", "context_embedder.proj_in"),
    (r"^txt_in\.t_embedder", "context_embedder.time_text_embed.timestep_embedder"),
    (r"^txt_in\.c_embedder", "context_embedder.time_text_embed.text_embedder"),
    (r"^txt_in\.individual_token_refiner\.blocks", "context_embedder.token_refiner.refiner_blocks"),
    (r"self_attn\.proj", "attn.to_out.0"),
    (r"mlp\.0\.", "ff.net.0.proj."),
    (r"mlp\.2\.", "ff.net.2."),
    (r"adaLN_modulation\.1", "norm_out.linear"),
    (r"\.in_layer\.", ".linear_1."),
    (r"\.out_layer\.", ".linear_2."),
)
BLOCK_NAMES = (
    (r"img_attn\.norm\.query_norm", "attn.norm_q"),
    (r"img_attn\.norm\.key_norm", "attn.norm_k"),
    (r"txt_attn\.norm\.query_norm", "attn.norm_added_q"),
    (r"txt_attn\.norm\.key_norm", "attn.norm_added_k"),
    (r"^norm\.query_norm", "attn.norm_q"),
    (r"^norm\.key_norm", "attn.norm_k"),
)
COGVIDEOX_NAMES = (("time_embedding_linear_", "time_embedding.linear_"),)
COGVIDEOX_BLOCK_NAMES = (("^norm_q", "attn1.norm_q"), ("^norm_k", "attn1.norm_k"))


def renamed(name: str, names: Iterable[tuple[str, str]]) -> str:
    for pattern, other in names:
        name = re.sub(pattern, other, name)
    return name


def hunyuan_weights(weights: Weights, transformer: nn.Module, time: str) -> Weights:
    """By the family's own names of the layers in blocks; queries, keys and values of the text's refiner are parted likewise."""
    made: Weights = {}
    family = family_of(transformer)
    paths = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
    for name, value in weights.items():
        match = re.fullmatch(r"(\w+_blocks)\.(\d+)\.(.+)\.(weight|bias)", name)
        if match:
            path = f"{paths[match[1]]}.{match[2]}"
            layer = renamed(match[3], BLOCK_NAMES)
            for part in family.layer_parts(transformer.get_submodule(path), layer):
                rows = value[part.rows] if isinstance(part.linear, nn.Linear) else value
                made[f"{path}.{part.path}.{match[4]}"] = rows
        elif "self_attn.qkv" in name:
            for layer, rows in zip(("to_q", "to_k", "to_v"), value.chunk(3), strict=True):
                made[renamed(name, HUNYUAN_NAMES).replace("self_attn.qkv", f"attn.{layer}")] = rows
        else:
            is_swapped = name.startswith("final_layer.adaLN")  # scale and shift
            made[renamed(name, ((r"^time_in\.", time), *HUNYUAN_NAMES))] = torch.cat(value.chunk(2)[::-1]) if is_swapped else value
    return made


def cogvideox_weights(weights: Weights, transformer: nn.Module) -> Weights:
    own = {path: layer for layer, path in COMFY_COGVIDEOX.layer_paths.items()}
    made: Weights = {}
    for name, value in weights.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if match:
            layer = own.get(match[2], renamed(match[2], COGVIDEOX_BLOCK_NAMES))
            made[f"transformer_blocks.{match[1]}.{layer}.{match[3]}"] = value
        else:
            made[renamed(name, COGVIDEOX_NAMES)] = value
    return made


TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "wan": lambda: WanTransformer3DModel(
        **IN_AND_OUT, num_attention_heads=2, attention_head_dim=32, text_dim=TEXT_DIM, freq_dim=32, ffn_dim=96, num_layers=NUM_BLOCKS
    ),
    "cogvideox": lambda: CogVideoXTransformer3DModel(
        **IN_AND_OUT,
        num_attention_heads=2,
        attention_head_dim=32,
        time_embed_dim=48,
        text_embed_dim=TEXT_DIM,
        num_layers=NUM_BLOCKS,
        sample_width=LATENTS[4],
        sample_height=LATENTS[3],
        sample_frames=9,
        use_rotary_positional_embeddings=True,
    ),
    "ltx": lambda: LTXVideoTransformer3DModel(**LTX, caption_channels=TEXT_DIM),
    "ltx2": lambda: LTX2VideoTransformer3DModel(
        **LTX,
        caption_channels=TEXT_DIM,
        audio_in_channels=128,
        audio_out_channels=128,
        audio_num_attention_heads=4,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=32,
        rope_type="split",
    ),
    "hunyuan": lambda: HunyuanVideoTransformer3DModel(
        **IN_AND_OUT, **HUNYUAN, num_single_layers=NUM_BLOCKS, pooled_projection_dim=16, rope_axes_dim=(8, 12, 12)
    ),
    "hunyuan 1.5": lambda: HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        **HUNYUAN,
        text_embed_2_dim=1472,
        image_embed_dim=16,
        rope_axes_dim=(8, 12, 12),
    ),
}
CONVERT: dict[str, Callable[[Weights, nn.Module], Mapping[str, torch.Tensor]]] = {
    "wan": lambda weights, _: single_file_utils.convert_wan_transformer_to_diffusers(weights),
    "cogvideox": cogvideox_weights,
    "ltx": lambda weights, _: single_file_utils.convert_ltx_transformer_checkpoint_to_diffusers(weights),
    "ltx2": lambda weights, _: single_file_utils.convert_ltx2_transformer_to_diffusers(weights),
    "hunyuan": lambda weights, model: hunyuan_weights(weights, model, "time_text_embed.timestep_embedder."),
    "hunyuan 1.5": lambda weights, model: hunyuan_weights(weights, model, "time_embed.timestep_embedder."),
}
PREDICT = {
    "wan": wan_predict,
    "cogvideox": cogvideox_predict,
    "ltx": ltx_predict,
    "ltx2": ltx2_predict,
    "hunyuan": hunyuan_predict,
    "hunyuan 1.5": hunyuan_15_predict,
}


def text_for(name: str, given: Weights) -> torch.Tensor:
    """The text of a call as the base of this kind has it."""
    if name == "hunyuan":
        return torch.cat([nn.functional.pad(given["pooled"], (0, TEXT_DIM - 16))[:, None], given["text"]], dim=1)
    if name == "hunyuan 1.5":
        return torch.stack([joined(*both) for both in zip(given["text"], given["glyphs"], strict=True)])
    return given["text"]


@pytest.fixture(scope="module")
def computed(comfy_host: ComfyHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ComfyUI made of every model."""
    folder = tmp_path_factory.mktemp("parity")
    done = subprocess.run([comfy_host.python, HERE / "parity_models.py", comfy_host.path, folder], capture_output=True, text=True, cwd=HERE)
    assert not done.returncode, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module", params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def transformer(name: str, computed: Path) -> nn.Module:
    model = TRANSFORMERS[name]().eval().requires_grad_(False)
    weights = dict(CONVERT[name](load_file(computed / f"{name}.safetensors"), model))
    model.load_state_dict({key: value for key, value in weights.items() if "pos_embedding" not in key})
    return model


def predict(name: str, transformer: nn.Module) -> torch.Tensor:
    given = inputs()
    with torch.no_grad():
        return PREDICT[name](transformer, given["latents"], given["timestep"], text_for(name, given))


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).norm() / right.norm())


def test_the_same_weights_put_out_the_same(name: str, transformer: nn.Module, computed: Path) -> None:
    assert difference(predict(name, transformer), load_file(computed / f"{name} outputs.safetensors")["plain"]) < 1e-4


def test_either_knows_the_base_of_the_other(name: str, transformer: nn.Module, computed: Path) -> None:
    recorded = json.loads((computed / f"{name}.json").read_text(encoding="utf-8"))
    assert recorded["signature"]
    assert base_difference(recorded, transformer, None) is None
    assert base_record(transformer, None) == recorded


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pair_acts_alike(name: str, form: str, transformer: nn.Module, computed: Path) -> None:
    expected = load_file(computed / f"{name} outputs.safetensors")
    pair, _ = load_pair(computed / f"{name} {form}.safetensors")
    with Attachment(transformer, pair) as attachment:
        attachment.stage = STAGE
        made = predict(name, transformer)
    assert difference(expected[form], expected["plain"]) > 0.02
    assert difference(made, expected[form]) < 1e-4
