"""Tiny DiTs as ComfyUI computes them, alone and with pairs on them: weights, inputs, pairs and outputs as files. Runs in ComfyUI's Python:

    python parity_models.py COMFYUI_PATH OUT [NAME...]
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
NUM_BLOCKS, CHANNELS, TEXT_DIM = 3, 4, 24
STAGE, TIMESTEPS = 0.4, (900.0, 350.0)
FORMS = ("lora", "bottleneck")
HUNYUAN = {"hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2, "context_in_dim": TEXT_DIM, "depth": NUM_BLOCKS, "theta": 256}
HUNYUAN |= {"axes_dim": [8, 12, 12], "qkv_bias": True, "meanflow": False, "meanflow_sum": False, "out_channels": CHANNELS}
LTX = {"in_channels": CHANNELS, "attention_head_dim": 16, "num_attention_heads": 4, "num_layers": NUM_BLOCKS, "caption_channels": TEXT_DIM}
LTX2 = {"audio_in_channels": 128, "audio_attention_head_dim": 8, "audio_num_attention_heads": 4, "audio_cross_attention_dim": 32}
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "wan": (
        "comfy.ldm.wan.model.WanModel",
        {"model_type": "t2v", "dim": 64, "ffn_dim": 96, "num_heads": 2, "num_layers": NUM_BLOCKS, "in_dim": CHANNELS}
        | {"out_dim": CHANNELS, "text_dim": TEXT_DIM, "freq_dim": 32, "cross_attn_norm": True},
    ),
    "cogvideox": (
        "comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel",
        {"num_attention_heads": 2, "attention_head_dim": 32, "num_layers": NUM_BLOCKS, "time_embed_dim": 48, "in_channels": CHANNELS}
        | {"out_channels": CHANNELS, "text_embed_dim": TEXT_DIM, "sample_height": 4, "sample_width": 6, "sample_frames": 9}
        | {"use_rotary_positional_embeddings": True, "spatial_interpolation_scale": 1.0},
    ),
    "ltx": ("comfy.ldm.lightricks.model.LTXVModel", LTX | {"cross_attention_dim": 64}),
    "ltx2": (
        "comfy.ldm.lightricks.av_model.LTXAVModel",
        LTX | LTX2 | {"cross_attention_dim": 64, "causal_temporal_positioning": True, "use_middle_indices_grid": True}
        | {"rope_type": "split", "frequencies_precision": "float64", "av_ca_timestep_scale_multiplier": 1000.0},
    ),
    "hunyuan": (
        "comfy.ldm.hunyuan_video.model.HunyuanVideo",
        HUNYUAN | {"in_channels": CHANNELS, "patch_size": [1, 2, 2], "vec_in_dim": 16, "depth_single_blocks": NUM_BLOCKS}
        | {"guidance_embed": True, "byt5": False, "use_cond_type_embedding": False, "vision_in_dim": None},
    ),
    "hunyuan 1.5": (
        "comfy.ldm.hunyuan_video.model.HunyuanVideo",
        HUNYUAN | {"in_channels": 2 * CHANNELS + 1, "patch_size": [1, 1, 1], "vec_in_dim": None, "depth_single_blocks": 0}
        | {"guidance_embed": False, "byt5": True, "use_cond_type_embedding": True, "vision_in_dim": 16},
    ),
}  # fmt: skip
LATENTS = (len(TIMESTEPS), CHANNELS, 3, 4, 6)


def inputs(seed: int = 3) -> dict[str, torch.Tensor]:
    """Latents (B, C, f, h, w), text (B, T, X), a pooled text (B, Y), a text of glyphs (B, U, Z), and timesteps (B,)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"latents": LATENTS, "text": (2, 5, TEXT_DIM), "pooled": (2, 16), "glyphs": (2, 3, 1472)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | {"timestep": torch.tensor(TIMESTEPS)}


def predict(name: str, model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """What ComfyUI would call, without guidance: flow velocity or v (B, C, f, h, w)."""
    latents, timestep, text = given["latents"].clone(), given["timestep"], given["text"].clone()
    options: dict[str, object] = {"transformer_options": {}}
    mask = torch.ones(text.shape[:2], dtype=torch.long)
    if name == "ltx":
        return model(latents, timestep / 1000, text, mask, frame_rate=25, **options)
    if name == "ltx2":
        both = torch.cat([text, text], dim=-1)  # of video and sound
        return model([latents], timestep / 1000, both, mask, frame_rate=24, **options)
    if name == "hunyuan":
        return model(latents, timestep, text, y=given["pooled"], guidance=torch.full((len(latents),), 6.0), **options)
    if name == "hunyuan 1.5":
        no_image = torch.zeros(len(latents), CHANNELS + 1, *latents.shape[2:])
        return model(torch.cat([latents, no_image], dim=1), timestep, text, txt_byt5=given["glyphs"].clone(), **options)
    return model(latents, timestep, text, **options)


@torch.no_grad()
def main(comfyui_path: str, out: str, *names: str) -> None:
    sys.path[:0] = [comfyui_path, str(ROOT)]
    sys.argv = [sys.argv[0], "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    from tiny_checkpoints import build, noise_weights

    from dualreal_core.families.base_record import base_record
    from dualreal_core.method.attach import Attachment
    from dualreal_core.method.pair import new_pair
    from dualreal_core.storage import save_pair

    operations = importlib.import_module("comfy.ops").disable_weight_init
    placement = {"device": "cpu", "dtype": torch.float32, "operations": operations}
    given = inputs()
    for name in names or MODELS:
        class_path, sizes = MODELS[name]
        model = build(class_path, sizes | placement).eval().requires_grad_(False)
        weights = noise_weights(model, 1)
        model.load_state_dict(weights)
        save_file(weights, Path(out) / f"{name}.safetensors")
        (Path(out) / f"{name}.json").write_text(json.dumps(base_record(model, None)), encoding="utf-8")
        made = {"plain": predict(name, model, given)}
        for form in FORMS:
            pair = new_pair(model, identity_kind=form, motion_kind=form, rank=2, bottleneck_dim=4, num_groups=2, share_schedule=(0.3, 0.9))
            generator = torch.Generator().manual_seed(7)
            for parameter in pair.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            save_pair(Path(out) / f"{name} {form}.safetensors", pair, {})
            with Attachment(model, pair) as attachment:
                attachment.stage = STAGE
                made[form] = predict(name, model, given)
        save_file({key: value.contiguous() for key, value in made.items()}, Path(out) / f"{name} outputs.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
