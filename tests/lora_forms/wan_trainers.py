"""Plain LoRAs of Wan, as the trainers name them."""

from __future__ import annotations

import json

import torch

from .layers import WAN, flat, wan_name
from .sheet import Form, Sheet

KOHYA = ("lora_down.weight", "lora_up.weight")
DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")
KOHYA_METADATA = {"ss_network_module": "networks.lora_wan", "ss_network_dim": "4", "ss_network_alpha": "2.0"}


def diffusion_pipe(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    sheet.metadata["format"] = "pt"
    sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q", "o"]}


def musubi(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=torch.tensor(2.0))
    sheet.metadata |= KOHYA_METADATA


def musubi_converted(sheet: Sheet) -> None:
    """Alpha is in the weights by then, and the metadata are those of before."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    sheet.metadata |= KOHYA_METADATA


def ai_toolkit(sheet: Sheet) -> None:
    sheet.dtype = torch.float16
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    training = {"network": {"type": "lora", "linear": 4, "linear_alpha": 1}}
    sheet.metadata |= {"format": "pt", "software": json.dumps({"name": "ai-toolkit"}), "training_info": json.dumps(training)}


def ai_toolkit_experts(acting: str):
    def write(sheet: Sheet) -> None:
        for number, expert in enumerate(("high", "low"), 1):
            for layer in WAN:
                sheet.lora(layer, f"diffusion_model.transformer_{number}.{layer}", acts=expert == acting)
        sheet.left_out = ["low" if acting == "high" else "high"] if acting else []

    return write


def ai_toolkit_one_expert(sheet: Sheet) -> None:
    sheet.file = "my_cat_000002000_high_noise.safetensors"
    ai_toolkit(sheet)


def diffusers_wan(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=2.0)
    sheet.settings(r=4, lora_alpha=8, use_rslora=False, use_dora=False, rank_pattern={}, alpha_pattern={})
    sheet.metadata["format"] = "pt"


def diffusers_experts(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", acts=False)
        sheet.lora(layer, f"transformer_2.{wan_name(layer)}")
    sheet.left_out = ["high"]


def diffsynth(prefix: str):
    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"{prefix}{layer}", parts=DEFAULT)

    return write


def videox_fun(has_cross_attention: bool):
    """Its network has no name of its own, so that two underscores follow the prefix."""

    def write(sheet: Sheet) -> None:
        sheet.dtype = torch.bfloat16
        for layer in WAN:
            if has_cross_attention or "cross_attn" not in layer:
                sheet.lora(layer, f"lora_unet__{flat(layer)}", parts=KOHYA, alpha=torch.tensor(2.0, dtype=torch.bfloat16))
        if has_cross_attention:
            sheet.foreign("lora_te__encoder_block_0_layer_0_SelfAttention_q", 64, 64, KOHYA)
            sheet.tensors["lora_te__encoder_block_0_layer_0_SelfAttention_q.alpha"] = torch.tensor(2.0, dtype=torch.bfloat16)
            sheet.left_out = ["text encoder"]
        sheet.metadata |= {"sshs_model_hash": "0" * 64, "sshs_legacy_hash": "0" * 8}

    return write


def videox_fun_peft(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"lora_unet__{flat(layer)}", parts=KOHYA)


def simpletuner(sheet: Sheet) -> None:
    """Its own save of peft's weights, with its adapter's settings."""
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=16 / 4)
    sheet.settings(r=4, lora_alpha=16, lora_bias=False, target_modules=["to_q", "to_out.0"])


def simpletuner_comfyui(sheet: Sheet) -> None:
    """diffusers' names under ComfyUI's prefix, alpha beside."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{wan_name(layer)}", alpha=torch.tensor(16.0))


def simpletuner_extract(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"lycoris_{flat(wan_name(layer))}", parts=KOHYA, alpha=torch.tensor(2.0))
    sheet.metadata["lycoris_config"] = json.dumps({"algo": "locon", "multiplier": 1.0, "linear_dim": 4, "linear_alpha": 2.0})


def before_peft(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", parts=("lora.down.weight", "lora.up.weight"))


def without_suffix(sheet: Sheet) -> None:
    """Parameters, not layers, hold the matrices."""
    for layer in WAN:
        sheet.lora(layer, wan_name(layer), parts=("lora_A", "lora_B"))


def bare_to_out(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(
            layer, f"transformer.{wan_name(layer)}".removesuffix(".0") if "to_out" in wan_name(layer) else f"transformer.{wan_name(layer)}"
        )


def comfyui_keys(prefix: str):
    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"{prefix}{layer}", parts=KOHYA, alpha=torch.tensor(1.0))

    return write


def loud_name(sheet: Sheet) -> None:
    sheet.file = "MY_Cat_HIGH.SafeTensors"
    comfyui_keys("diffusion_model.")(sheet)


def torch_file(sheet: Sheet) -> None:
    sheet.file = "cat.pt"
    comfyui_keys("diffusion_model.")(sheet)


FORMS = (
    Form("Wan, native names, A/B, folder with adapter_config.json", "diffusion-pipe", "wan", diffusion_pipe),
    Form("Wan, kohya names, alpha", "musubi-tuner", "wan", musubi),
    Form("Wan, converted to A/B, alpha only in metadata of before", "musubi-tuner convert_lora", "wan", musubi_converted),
    Form("Wan, native names, A/B, fp16", "ai-toolkit", "wan", ai_toolkit),
    Form("Wan 2.2, both experts in one file, on the high one", "ai-toolkit", "wan22_t2v", ai_toolkit_experts("high"), "high-noise"),
    Form("Wan 2.2, both experts in one file, on the low one", "ai-toolkit", "wan22_t2v", ai_toolkit_experts("low"), "low-noise"),
    Form("Wan 2.2, both experts in one file, model unknown", "ai-toolkit", "wan22_t2v", ai_toolkit_experts(""), refused="both experts"),
    Form("Wan 2.2, one file per expert", "ai-toolkit", "wan22_t2v", ai_toolkit_one_expert, "high-noise"),
    Form("Wan, diffusers names, alpha in metadata", "diffusers save_lora_weights, finetrainers", "wan", diffusers_wan),
    Form("Wan 2.2, transformer and transformer_2", "diffusers", "wan22_t2v", diffusers_experts, "low-noise"),
    Form("Wan, pipe.dit., .default", "DiffSynth-Studio (older)", "wan", diffsynth("pipe.dit.")),
    Form("Wan, bare names, .default", "DiffSynth-Studio", "wan", diffsynth("")),
    Form("Wan, lora_unet__ without cross attention, bf16", "VideoX-Fun", "wan", videox_fun(False)),
    Form("Wan, lora_unet__ and lora_te__, bf16", "VideoX-Fun", "wan", videox_fun(True)),
    Form("Wan, lora_unet__ without alpha", "VideoX-Fun (peft)", "wan", videox_fun_peft),
    Form("Wan, diffusers names, alpha 16 of rank 4 in metadata", "SimpleTuner", "wan", simpletuner),
    Form("Wan, diffusers names under diffusion_model., alpha", "SimpleTuner lora_format comfyui", "wan", simpletuner_comfyui),
    Form("Wan, lycoris_ and diffusers names", "SimpleTuner extract", "wan", simpletuner_extract),
    Form("Wan, lora.down and lora.up", "diffusers before peft", "wan", before_peft),
    Form("Wan, lora_A without .weight, bare diffusers names", "FastVideo", "wan", without_suffix),
    Form("Wan, to_out without .0", "converters", "wan", bare_to_out),
    Form("Wan, native names, down/up, alpha", "ComfyUI, sd-scripts forks", "wan", comfyui_keys("diffusion_model.")),
    Form("Wan, model.diffusion_model.", "checkpoint extractors", "wan", comfyui_keys("model.diffusion_model.")),
    Form("Wan, bare native names", "OneTrainer original, others", "wan", comfyui_keys("")),
    Form("Wan, name in other case", "people", "wan", loud_name),
    Form("Wan, .pt", "older scripts", "wan", torch_file),
)
