"""Files that are odd but legal, and files that are to be refused with a sentence that says why."""

from __future__ import annotations

import pickle

import torch
from safetensors.torch import save

from .layers import WAN, flat, wan_name
from .sheet import Form, Sheet

KOHYA = ("lora_down.weight", "lora_up.weight")


def named(naming, parts=("lora_A.weight", "lora_B.weight")):
    """Plain LoRA under some name."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, naming(layer), parts=parts)

    return write


def whole_state(sheet: Sheet) -> None:
    """The base's own weights stand beside, as a state dict of a wrapped model has them."""
    for layer in WAN:
        name = f"base_model.model.{wan_name(layer)}"
        sheet.lora(layer, name, parts=("lora_A.default.weight", "lora_B.default.weight"))
        sheet.tensors[f"{name}.base_layer.weight"] = sheet.weights[f"{layer}.weight"].clone()


def fused_projections(sheet: Sheet) -> None:
    """q, k and v side by side, as diffusers fuses them, on layers that are apart."""
    for name, layers in (
        ("blocks.0.attn1.to_qkv", [f"blocks.0.self_attn.{letter}" for letter in "qkv"]),
        ("blocks.1.attn2.to_kv", [f"blocks.1.cross_attn.{letter}" for letter in "kv"]),
    ):
        out, inner = sheet.widths(layers[0])
        down = sheet.put(f"transformer.{name}.lora_A.weight", sheet.noise(4, inner) / inner**0.5)
        up = sheet.put(f"transformer.{name}.lora_B.weight", 0.3 * sheet.noise(out * len(layers), 4))
        for layer, delta in zip(layers, (up @ down).chunk(len(layers)), strict=True):
            sheet.change(f"{layer}.weight", delta)


def two_adapters(sheet: Sheet) -> None:
    named(lambda layer: f"base_model.model.{wan_name(layer)}", ("lora_A.cat.weight", "lora_B.cat.weight"))(sheet)
    named(lambda layer: f"base_model.model.{wan_name(layer)}", ("lora_A.dog.weight", "lora_B.dog.weight"))(sheet)


def unknown_tensors(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    sheet.tensors |= {"step": torch.tensor(2000), "bundle_emb.cat.t5_out": torch.randn(2, 16), "optimizer.lr": torch.tensor(1e-4)}
    sheet.left_out = ["bundle_emb|step"]


def empty_tensors(sheet: Sheet) -> None:
    """Of shape (0,), as sharded saves leave them."""
    for layer in WAN[1:]:
        sheet.lora(layer, f"diffusion_model.{layer}")
    sheet.tensors |= {f"diffusion_model.{WAN[0]}.lora_{letter}.weight": torch.zeros(0) for letter in "AB"}
    sheet.left_out = [r"rank 0|empty"]


def with_value(value: float):
    def write(sheet: Sheet) -> None:
        named("diffusion_model.{}".format)(sheet)
        sheet.tensors[f"diffusion_model.{WAN[1]}.lora_B.weight"][3, 1] = value

    return write


def half_a_layer(sheet: Sheet) -> None:
    named("diffusion_model.{}".format)(sheet)
    del sheet.tensors[f"diffusion_model.{WAN[2]}.lora_B.weight"]


def truncated(sheet: Sheet) -> None:
    named("diffusion_model.{}".format)(sheet)
    sheet.raw = save(sheet.tensors)[:-1000]


def pickled_code(sheet: Sheet) -> None:
    sheet.file, sheet.raw = "cat.pt", pickle.dumps(print)


def page(sheet: Sheet) -> None:
    """What a browser saves in place of a file that needs a login."""
    sheet.raw = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


def whole_model(sheet: Sheet) -> None:
    sheet.tensors = {f"model.diffusion_model.{name}": weight.half() for name, weight in sheet.weights.items()}


def foreign_model(*names: tuple[str, int, int]):
    def write(sheet: Sheet) -> None:
        for name, out, inner in names:
            sheet.foreign(name, out, inner, KOHYA if name.startswith("lora_") else ("lora_A.weight", "lora_B.weight"))

    return write


def flux_on_hunyuan(sheet: Sheet) -> None:
    """Layers of the same names and sizes, and another model."""
    width = sheet.widths("double_blocks.0.img_attn.proj")[0]
    sheet.foreign("transformer.transformer_blocks.0.attn.to_q", width, width)
    sheet.foreign("transformer.single_transformer_blocks.0.proj_out", width, 5 * width)
    sheet.metadata |= {"modelspec.architecture": "flux-1-dev/lora", "ss_base_model_version": "flux1"}


def wider_wan(sheet: Sheet) -> None:
    for number in range(40):
        sheet.foreign(f"diffusion_model.blocks.{number}.self_attn.q", 512, 512)


def all_of_rank_0(sheet: Sheet) -> None:
    for layer in WAN:
        out, inner = sheet.widths(layer)
        sheet.tensors |= {
            f"diffusion_model.{layer}.lora_A.weight": torch.zeros(0, inner),
            f"diffusion_model.{layer}.lora_B.weight": torch.zeros(out, 0),
        }


def text_encoder_alone(sheet: Sheet) -> None:
    sheet.foreign("lora_te1_text_model_encoder_layers_0_mlp_fc1", 64, 64, KOHYA)


def adaptive_rank(sheet: Sheet) -> None:
    """AdaLoRA: singular values between the matrices, which a reader of plain LoRA would miss."""
    named(lambda layer: f"base_model.model.{wan_name(layer)}")(sheet)
    for layer in WAN:
        sheet.put(f"base_model.model.{wan_name(layer)}.lora_E", sheet.noise(4, 1))
    sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": "ADALORA", "r": 4, "lora_alpha": 4}


def vera(sheet: Sheet) -> None:
    """Vectors on matrices that stand in no file."""
    for layer in WAN:
        out, _ = sheet.widths(layer)
        sheet.put(f"base_model.model.{wan_name(layer)}.vera_lambda_b", sheet.noise(out))
        sheet.put(f"base_model.model.{wan_name(layer)}.vera_lambda_d", sheet.noise(4))
    sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": "VERA", "r": 4}


FLUX = (("transformer.transformer_blocks.0.attn.to_q", 64, 64), ("transformer.single_transformer_blocks.0.proj_mlp", 256, 64))
SDXL = (
    ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 64, 64),
    ("lora_unet_output_blocks_3_1_transformer_blocks_0_ff_net_0_proj", 512, 64),
)
HUNYUAN = (("transformer.double_blocks.0.img_attn_qkv", 384, 128), ("transformer.single_blocks.0.linear1", 896, 128))
LTX = (("transformer.transformer_blocks.0.attn2.to_q", 64, 64), ("transformer.transformer_blocks.0.ff.net.0.proj", 256, 64))
FORMS = (
    Form("state dict of a wrapped model, base weights beside", "peft state_dict()", "wan", whole_state),
    Form(
        "name of the adapter in the keys",
        "peft state_dict()",
        "wan",
        named(lambda one: f"base_model.model.{wan_name(one)}", ("lora_A.my_cat.weight", "lora_B.my_cat.weight")),
    ),
    Form(
        "transformer.base_model.model. with lora.down and lora.up",
        "SimpleTuner (older, peft)",
        "wan",
        named(lambda one: f"transformer.base_model.model.{wan_name(one)}", ("lora.down.weight", "lora.up.weight")),
    ),
    Form("_orig_mod of torch.compile", "peft state_dict()", "wan", named(lambda one: f"base_model.model._orig_mod.{wan_name(one)}")),
    Form("bare diffusers names", "get_peft_model_state_dict", "wan", named(wan_name)),
    Form(
        "transformer.base_model.model.",
        "scripts on peft and diffusers",
        "wan",
        named(lambda one: f"transformer.base_model.model.{wan_name(one)}"),
    ),
    Form("base_model.model. and native names", "peft on Wan's own code", "wan", named("base_model.model.{}".format)),
    Form("module. of distributed training", "scripts", "wan", named("module.{}".format)),
    Form("lora_unet_ of diffusers names", "converters", "wan", named(lambda one: f"lora_unet_{flat(wan_name(one))}", KOHYA)),
    Form("to_qkv and to_kv of fused projections", "diffusers fuse_qkv_projections", "wan", fused_projections),
    Form("unknown tensors beside", "scripts", "wan", unknown_tensors),
    Form("empty tensors", "sharded saves", "wan", empty_tensors),
    Form("NaN", "failed training", "wan", with_value(float("nan")), refused="no numbers|NaN"),
    Form("infinite", "failed training in fp16", "wan", with_value(float("inf")), refused="no numbers|NaN|infinite"),
    Form("half a layer", "damaged", "wan", half_a_layer, refused="incomplete|one of the two"),
    Form("truncated", "broken download", "wan", truncated, refused="damaged|complete"),
    Form("code in a pickle", "attack", "wan", pickled_code, refused="damaged|complete|no LoRA"),
    Form("a page in place of a file", "download without login", "wan", page, refused="damaged|complete|no LoRA"),
    Form("a whole model", "wrong folder", "wan", whole_model, refused="LoRA"),
    Form("Flux on Wan", "any", "wan", foreign_model(*FLUX), refused="Flux"),
    Form("Flux on HunyuanVideo", "any", "hunyuan", flux_on_hunyuan, refused="Flux"),
    Form("SDXL on Wan", "any", "wan", foreign_model(*SDXL), refused="SDXL|Stable Diffusion"),
    Form("HunyuanVideo on Wan", "any", "wan", foreign_model(*HUNYUAN), refused="(?i)hunyuan"),
    Form("LTX-Video on Wan", "any", "wan", foreign_model(*LTX), refused="(?i)ltx"),
    Form("Wan 14B on a narrower Wan", "any", "wan", wider_wan, refused="wide|width"),
    Form("all layers of rank 0", "kohya resize_lora", "wan", all_of_rank_0, refused="rank 0"),
    Form("text encoder alone", "kohya", "wan", text_encoder_alone, refused="text encoder"),
    Form("two adapters in one file", "peft state_dict()", "wan", two_adapters, refused="adapters"),
    Form("AdaLoRA", "peft", "wan", adaptive_rank, refused="AdaLoRA|ADALORA|lora_E"),
    Form("VeRA", "peft", "wan", vera, refused="VeRA|VERA|vera"),
)
