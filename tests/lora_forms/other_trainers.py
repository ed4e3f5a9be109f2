"""Plain LoRAs of CogVideoX, LTX, HunyuanVideo, Kandinsky 5 and MiniMax-H3, as the trainers name them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .layers import (
    COGVIDEOX,
    H3,
    HUNYUAN,
    HUNYUAN_DOUBLE,
    KANDINSKY,
    LTX,
    LTX2_SOUND,
    Part,
    cogvideox_name,
    flat,
    h3_parts,
    hunyuan_parts,
    ltx_name,
    renamed,
)
from .sheet import Form, Sheet

KOHYA = ("lora_down.weight", "lora_up.weight")
OFFICIAL = {"_mod.lin": "_mod.linear", "_attn.qkv": "_attn_qkv", "_attn.proj": "_attn_proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
"""Of HunyuanVideo's own code, which diffusion-pipe and musubi-tuner train."""


def plain(layers: tuple[str, ...], naming: Callable[[str], str], kohya: bool = False, dtype: torch.dtype = torch.float32):
    """Every layer by its name in the file."""

    def write(sheet: Sheet) -> None:
        sheet.dtype = dtype
        for layer in layers:
            how = {"parts": KOHYA, "alpha": torch.tensor(2.0, dtype=dtype)} if kohya else {}
            sheet.lora(layer, naming(layer), **how)

    return write


def in_parts(parts: Callable[[Sheet], list[Part]], naming: Callable[[str], str], alpha: bool = False, kohya: bool = False):
    """Layers that are rows of ComfyUI's."""

    def write(sheet: Sheet) -> None:
        for part in parts(sheet):
            how = {"alpha": torch.tensor(2.0)} if alpha else {}
            names = KOHYA if kohya else ("lora_A.weight", "lora_B.weight")
            sheet.lora(part.layer, naming(part.name), parts=names, rows=part.rows, order=part.order, **how)

    return write


def hunyuan_of(sheet: Sheet) -> list[Part]:
    """The parts of a HunyuanVideo of any size, 1.5 or not."""
    width = sheet.widths("double_blocks.0.img_attn.qkv")[1]
    return hunyuan_parts(width, sheet.widths("double_blocks.2.img_mlp.0")[0], "single_blocks.0.linear1.weight" in sheet.weights)


def h3_of(sheet: Sheet, gate_first: bool = False) -> list[Part]:
    """The parts of a MiniMax-H3 of any size."""
    return h3_parts(sheet.widths("blocks.0.attn.qkv_proj")[0] // 3, sheet.widths("blocks.1.mlp.fc1")[0] // 2, gate_first)


def hunyuan15_musubi(sheet: Sheet) -> None:
    """q, k and v are layers of their own there; all else is called as in HunyuanVideo's code."""
    for layer in HUNYUAN_DOUBLE:
        name = flat(renamed(layer, OFFICIAL))
        if "qkv" not in layer:
            sheet.lora(layer, f"lora_unet_{name}", parts=KOHYA, alpha=torch.tensor(2.0))
            continue
        width = sheet.widths(layer)[1]
        for number, letter in enumerate("qkv"):
            rows = (number * width, width)
            sheet.lora(layer, f"lora_unet_{name.replace('qkv', letter)}", parts=KOHYA, alpha=torch.tensor(2.0), rows=rows)


def hunyuan15_converted(sheet: Sheet) -> None:
    """Fused anew: the matrices of q, k and v side by side, alpha thrice as large."""
    layer = HUNYUAN_DOUBLE[0]
    out, inner = sheet.widths(layer)
    width, rank, name = out // 3, 4, f"lora_unet_{flat(HUNYUAN_DOUBLE[0])}"
    down = sheet.put(f"{name}.lora_down.weight", sheet.noise(3 * rank, inner) / inner**0.5)
    ups = torch.block_diag(*(0.3 * sheet.noise(width, rank) for _ in range(3)))
    up = sheet.put(f"{name}.lora_up.weight", ups)
    sheet.tensors[f"{name}.alpha"] = torch.tensor(6.0)
    sheet.change(f"{layer}.weight", up @ down * (6.0 / (3 * rank)))


def h3_diffsynth(sheet: Sheet) -> None:
    """Trains the checkpoint as it is, whose q, k and v are side by side for each head."""
    for layer in H3:
        order = None
        if "qkv" in layer:
            head = sheet.weights["blocks.0.attn.q_norm.weight"].numel()
            width = sheet.widths(layer)[0] // 3
            ours = torch.arange(3 * width).reshape(3, width // head, head)  # by which, head and channel
            order = ours.transpose(0, 1).reshape(-1)
        sheet.lora(layer, layer, parts=("lora_A.default.weight", "lora_B.default.weight"), order=order)


def h3_simpletuner(sheet: Sheet) -> None:
    in_parts(lambda one: h3_of(one, gate_first=True), "transformer.{}".format)(sheet)
    sheet.settings(r=4, lora_alpha=4, swiglu_gate_first=True)


FORMS = (
    Form(
        "CogVideoX, diffusers names",
        "finetrainers, diffusers",
        "cogvideox",
        plain(COGVIDEOX, lambda one: f"transformer.{cogvideox_name(one)}"),
    ),
    Form("CogVideoX, base_model.model.", "peft", "cogvideox", plain(COGVIDEOX, lambda one: f"base_model.model.{cogvideox_name(one)}")),
    Form(
        "CogVideoX, lora_unet__ and diffusers names",
        "VideoX-Fun (CogVideoX-Fun)",
        "cogvideox",
        plain(COGVIDEOX, lambda one: f"lora_unet__{flat(cogvideox_name(one))}", kohya=True, dtype=torch.bfloat16),
    ),
    Form("CogVideoX, native names", "ComfyUI", "cogvideox", plain(COGVIDEOX, "diffusion_model.{}".format)),
    Form("LTX-Video, diffusers names", "LTX-Video-Trainer", "ltxv", plain(LTX, lambda one: f"transformer.{ltx_name(one)}")),
    Form("LTX-Video, for ComfyUI", "LTX-Video-Trainer", "ltxv", plain(LTX, "diffusion_model.{}".format, dtype=torch.bfloat16)),
    Form("LTX-Video, native names", "diffusion-pipe", "ltxv", plain(LTX, "diffusion_model.{}".format)),
    Form("LTX-Video, kohya names", "musubi forks", "ltxv", plain(LTX, lambda one: f"lora_unet_{flat(one)}", kohya=True)),
    Form("LTX-2, sound too", "LTX-2 trainer", "ltx20", plain((*LTX, *LTX2_SOUND), "diffusion_model.{}".format, dtype=torch.bfloat16)),
    Form("LTX-2, diffusers names", "diffusers", "ltx20", plain((*LTX, *LTX2_SOUND), lambda one: f"transformer.{one}")),
    Form(
        "HunyuanVideo, its own names",
        "diffusion-pipe, official",
        "hunyuan",
        plain(HUNYUAN, lambda one: f"transformer.{renamed(one, OFFICIAL)}"),
    ),
    Form(
        "HunyuanVideo, its own names, diffusion_model.",
        "finetrainers converter",
        "hunyuan",
        plain(HUNYUAN, lambda one: f"diffusion_model.{renamed(one, OFFICIAL)}"),
    ),
    Form(
        "HunyuanVideo, Hunyuan_video_I2V_lora_",
        "HunyuanVideo-I2V official",
        "hunyuan",
        plain(HUNYUAN, lambda one: f"Hunyuan_video_I2V_lora_{flat(renamed(one, OFFICIAL))}", kohya=True),
    ),
    Form(
        "HunyuanVideo, kohya names, fc1 and fc2",
        "musubi-tuner",
        "hunyuan",
        plain(HUNYUAN, lambda one: f"lora_unet_{flat(renamed(one, OFFICIAL))}", kohya=True),
    ),
    Form(
        "HunyuanVideo, diffusers names (q, k, v apart)", "FastVideo, finetrainers", "hunyuan", in_parts(hunyuan_of, "transformer.{}".format)
    ),
    Form(
        "HunyuanVideo, kohya of diffusers names",
        "musubi-tuner (FramePack)",
        "hunyuan",
        in_parts(hunyuan_of, lambda name: f"lora_unet_{flat(name)}", alpha=True, kohya=True),
    ),
    Form(
        "HunyuanVideo, lora_transformer_",
        "OneTrainer legacy",
        "hunyuan",
        in_parts(hunyuan_of, lambda name: f"lora_transformer_{flat(name)}", alpha=True, kohya=True),
    ),
    Form(
        "HunyuanVideo, transformer., down/up, alpha",
        "OneTrainer backup",
        "hunyuan",
        in_parts(hunyuan_of, "transformer.{}".format, alpha=True, kohya=True),
    ),
    Form(
        "HunyuanVideo, native names, A/B with alpha",
        "OneTrainer comfy",
        "hunyuan",
        lambda sheet: [sheet.lora(one, f"diffusion_model.{one}", alpha=torch.tensor(1.0)) for one in HUNYUAN],
    ),
    Form("HunyuanVideo 1.5, q, k, v apart", "musubi-tuner", "hunyuan15", hunyuan15_musubi),
    Form("HunyuanVideo 1.5, q, k, v fused anew", "musubi-tuner convert", "hunyuan15", hunyuan15_converted),
    Form("HunyuanVideo 1.5, diffusers names", "diffusers", "hunyuan15", in_parts(hunyuan_of, "transformer.{}".format)),
    Form("Kandinsky 5, kohya names", "musubi-tuner", "kandinsky5", plain(KANDINSKY, lambda one: f"lora_unet_{flat(one)}", kohya=True)),
    Form("Kandinsky 5, diffusers names", "diffusers", "kandinsky5", plain(KANDINSKY, "transformer.{}".format)),
    Form("MiniMax-H3, native names", "ai-toolkit", "h3", plain(H3, "diffusion_model.{}".format, dtype=torch.bfloat16)),
    Form("MiniMax-H3, bare native names", "reference code", "h3", plain(H3, "{}".format)),
    Form("MiniMax-H3, kohya names", "musubi-tuner", "h3", plain(H3, lambda one: f"lora_unet_{flat(one)}", kohya=True)),
    Form("MiniMax-H3, qkv side by side for each head", "DiffSynth-Studio", "h3", h3_diffsynth),
    Form("MiniMax-H3, diffusers names (value before gate)", "diffusers", "h3", in_parts(h3_of, "transformer.{}".format)),
    Form("MiniMax-H3, diffusers names, swiglu_gate_first", "SimpleTuner", "h3", h3_simpletuner),
)
