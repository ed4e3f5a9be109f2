"""As single published files, readers and wrappers have them: strength in plain metadata, and spellings of few programs."""

from __future__ import annotations

import torch

from .layers import WAN, flat, wan_name
from .other_trainers import h3_of
from .sheet import Form, Sheet


def plain_metadata(alpha: str, rank: str):
    """Numbers as fields of the metadata, not in a configuration."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"transformer.{wan_name(layer)}", scale=8 / 4)
        sheet.metadata |= {alpha: "8.0", rank: "4"}

    return write


def resized_with_metadata_of_before(sheet: Sheet) -> None:
    """The rank became 4, the factor stayed."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}", scale=32 / 16)
    sheet.metadata |= {"lora_alpha": "32", "lora_rank": "16"}


def merge_ratio_in_metadata(sheet: Sheet) -> None:
    """An alpha without a rank, which is no LoRA's."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    sheet.metadata |= {"alpha": "0.5", "lora_alpha": "auto"}


def h3_acceleration(sheet: Sheet) -> None:
    """Matrices without `.weight`, and a bank of heads that no DiT has."""
    for part in h3_of(sheet):
        sheet.lora(part.layer, part.name, parts=("lora_down", "lora_up"), rows=part.rows, order=part.order, scale=8 / 4)
    sheet.metadata["lora_alpha"] = "8"
    sheet.put("proj_out.weight", sheet.noise(32, 8, 16))
    sheet.put("proj_out.bias", sheet.noise(32, 8))
    sheet.left_out = ["proj_out"]


KOHYA = ("lora_down.weight", "lora_up.weight")


def named(naming, parts=("lora_A.weight", "lora_B.weight"), scale: float | None = None):
    """Plain LoRA under some name."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, naming(layer), parts=parts, scale=scale)

    return write


def on_end(sheet: Sheet) -> None:
    """Both matrices the other way round, (in, R) and (R, out)."""
    for layer in WAN:
        out, inner = sheet.widths(layer)
        down = sheet.put(f"{wan_name(layer)}.lora_a", sheet.noise(inner, 4) / inner**0.5)
        up = sheet.put(f"{wan_name(layer)}.lora_b", 0.3 * sheet.noise(4, out))
        sheet.change(f"{layer}.weight", (down @ up).T)


def number_beside(name: str, number: float, scale: float):
    """A number of each layer, with which it is multiplied."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"diffusion_model.{layer}", scale=scale)
            sheet.tensors[f"diffusion_model.{layer}.{name}"] = torch.tensor(number)
            sheet.tensors[f"diffusion_model.{layer}.rank"] = torch.tensor(4)

    return write


def base_in_8_bits(sheet: Sheet) -> None:
    """Copies of the model's own weights, which are rounded: no change of them is meant."""
    for layer in WAN:
        name = f"base_model.model.{wan_name(layer)}"
        sheet.lora(layer, name, parts=("lora_A.default.weight", "lora_B.default.weight"))
        sheet.tensors[f"{name}.base_layer.weight"] = (1.01 * sheet.weights[f"{layer}.weight"]).to(torch.float8_e4m3fn)


def adapter_of_text_encoder(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer.{wan_name(layer)}", parts=("lora_A.cat v1.5.weight", "lora_B.cat v1.5.weight"))
    sheet.foreign("text_encoder.encoder.block.0.layer.0.SelfAttention.q", 64, 64, ("lora_A.te.weight", "lora_B.te.weight"))
    sheet.left_out = ["text encoder"]


def of_both(high: str, low: str):
    """Both experts in one file, under these names; for the high-noise one."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, high.format(layer))
            sheet.lora(layer, low.format(layer), acts=False)
        sheet.left_out = ["10 tensors of the low-noise expert"]

    return write


def of_the_other(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"transformer_2.{wan_name(layer)}")
    sheet.left_out = ["keys are of the low-noise expert"]


def begun_by(init: str):
    """Trained on weights that the beginning had changed."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"base_model.model.{wan_name(layer)}", acts=False)
        sheet.file, sheet.config = "adapter_model.safetensors", {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "init_lora_weights": init}

    return write


def quantized(dtype: torch.dtype, scale: str):
    """Matrices in few bits, whose scales stand beside."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"diffusion_model.{layer}", acts=False)
            for part in ("lora_A", "lora_B"):
                name = f"diffusion_model.{layer}.{part}"
                sheet.tensors[f"{name}.weight"] = (100 * sheet.tensors[f"{name}.weight"]).to(dtype)
                sheet.tensors[f"{name}.{scale}"] = torch.tensor(0.01)

    return write


def part_of_no_kind(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}", acts=False)
        sheet.put(f"diffusion_model.{layer}.lora_gate", sheet.noise(4))


EXPERTS = (
    ("high_noise_model and low_noise_model", "scripts on Wan's code", "high_noise_model.{}", "low_noise_model.{}"),
    ("dit and dit2", "DiffSynth-Studio", "pipe.dit.{}", "pipe.dit2.{}"),
    ("high_noise and low_noise", "scripts", "high_noise.diffusion_model.{}", "low_noise.diffusion_model.{}"),
    ("unet and unet_2", "scripts", "unet.{}", "unet_2.{}"),
)
FORMS = (
    Form("lora_alpha and lora_rank in metadata", "HyperFlow, scripts", "wan", plain_metadata("lora_alpha", "lora_rank")),
    Form("alpha and rank in metadata", "LightX2V", "wan", plain_metadata("alpha", "rank")),
    Form("lora_alpha in metadata, resized", "scripts", "wan", resized_with_metadata_of_before),
    Form("alpha of a merge in metadata", "merge tools", "wan", merge_ratio_in_metadata),
    Form("MiniMax-H3, lora_down and lora_up, bank of heads", "VideoX-Fun (Acc)", "h3", h3_acceleration),
    Form("lora_a and lora_b", "scripts", "wan", named("diffusion_model.{}".format, ("lora_a.weight", "lora_b.weight"))),
    Form("lora_a (in, R) and lora_b (R, out)", "MLX", "wan", on_end),
    Form("lora.A and lora.B", "scripts", "wan", named("diffusion_model.{}".format, ("lora.A.weight", "lora.B.weight"))),
    Form("lora.lora_A and lora.lora_B", "scripts", "wan", named("{}".format, ("lora.lora_A.weight", "lora.lora_B.weight"))),
    Form("two underscores for a dot", "converters", "wan", named(lambda one: f"lora_unet_{one.replace('.', '__')}", KOHYA)),
    Form("slashes for dots", "JAX", "wan", named(lambda one: one.replace(".", "/"))),
    Form("LoRA_UNet_", "converters", "wan", named(lambda one: f"LoRA_UNet_{flat(one)}", KOHYA)),
    Form("lora_scale of each layer", "scripts", "wan", number_beside("lora_scale", 1.5, 1.5)),
    Form("scalar of each layer", "LyCORIS use_scalar", "wan", number_beside("scalar", 0.5, 0.5)),
    Form("base weights in 8 bits beside", "peft state_dict()", "wan", base_in_8_bits),
    Form("another adapter on the text encoder", "diffusers", "wan", adapter_of_text_encoder),
    *(Form(f"Wan 2.2, {name}", tool, "wan22_t2v", of_both(high, low), "high-noise") for name, tool, high, low in EXPERTS),
    Form("Wan 2.2, transformer_2 on the high one", "diffusers", "wan22_t2v", of_the_other, "high-noise"),
    *(Form(f"{init}, not converted", "peft", "wan", begun_by(init), refused=init) for init in ("pissa", "pissa_niter_16", "olora")),
    Form("int8 and scales", "converters", "wan", quantized(torch.int8, "weight_scale"), refused="whole numbers"),
    Form("float8 and scales", "converters", "wan", quantized(torch.float8_e4m3fn, "scale_weight"), refused="scale_weight.*no kind"),
    Form("a part of no kind", "scripts", "wan", part_of_no_kind, refused="lora_gate.*no kind"),
)
