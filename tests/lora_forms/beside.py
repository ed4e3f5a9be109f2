"""What files change beside linear layers on tokens: norms, biases, embeddings, heads, modulation, other blocks, text encoders."""

from __future__ import annotations

import torch

from .layers import COGVIDEOX, H3, HUNYUAN, KANDINSKY, LTX, WAN, cogvideox_name, flat, h3_parts, ltx_name, wan_name
from .sheet import Form, Sheet

KOHYA = ("lora_down.weight", "lora_up.weight")


def difference(sheet: Sheet, parameter: str, key: str, spread: float = 0.1) -> None:
    """A difference of a parameter as it is."""
    sheet.change(parameter, sheet.put(key, spread * sheet.noise(*sheet.weights[parameter].shape)))


def lightx2v(sheet: Sheet) -> None:
    """Low-rank matrices, differences of all norms and biases, of the patch embedding and of parameters that belong to no layer."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}", parts=KOHYA)
        difference(sheet, f"{layer}.bias", f"diffusion_model.{layer}.diff_b")
    for layer in ("head.head", "text_embedding.0", "time_embedding.2", "time_projection.1"):
        sheet.lora(layer, f"diffusion_model.{layer}", parts=KOHYA)
        difference(sheet, f"{layer}.bias", f"diffusion_model.{layer}.diff_b")
    for layer in ("blocks.0.norm3", "blocks.1.self_attn.norm_q", "blocks.2.cross_attn.norm_k", "patch_embedding"):
        difference(sheet, f"{layer}.weight", f"diffusion_model.{layer}.diff", 0.05)
    difference(sheet, "blocks.0.norm3.bias", "diffusion_model.blocks.0.norm3.diff_b")
    difference(sheet, "patch_embedding.bias", "diffusion_model.patch_embedding.diff_b")
    for parameter in ("blocks.0.modulation", "blocks.2.modulation", "head.modulation"):
        difference(sheet, parameter, f"diffusion_model.{parameter}.diff")


def kjnodes(sheet: Sheet) -> None:
    for layer in (*WAN, "head.head"):
        sheet.lora(layer, f"diffusion_model.{layer}", parts=KOHYA)
        difference(sheet, f"{layer}.bias", f"diffusion_model.{layer}.diff_b")
    for layer in ("blocks.0.norm3", "blocks.0.self_attn.norm_q"):
        difference(sheet, f"{layer}.weight", f"diffusion_model.{layer}.diff", 0.05)


def kjnodes_full(sheet: Sheet) -> None:
    for layer in (*WAN, "head.head", "time_projection.1"):
        difference(sheet, f"{layer}.weight", f"diffusion_model.{layer}.diff", 0.02)
        difference(sheet, f"{layer}.bias", f"diffusion_model.{layer}.diff_b")


def norms_of_lycoris(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=torch.tensor(2.0))
    for number in range(3):
        name = f"blocks.{number}.norm3"
        difference(sheet, f"{name}.weight", f"lora_unet_{flat(name)}.w_norm")
        difference(sheet, f"{name}.bias", f"lora_unet_{flat(name)}.b_norm")


def set_weight(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    name = "blocks.1.self_attn.norm_k"
    new = sheet.put(f"diffusion_model.{name}.set_weight", 1 + 0.2 * sheet.noise(*sheet.weights[f"{name}.weight"].shape))
    sheet.change(f"{name}.weight", new - sheet.weights[f"{name}.weight"].double())


def modules_to_save(key: str):
    """Layers that were trained whole, as they are afterwards."""

    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"base_model.model.{wan_name(layer)}")
        for part in ("weight", "bias"):
            old = sheet.weights[f"head.head.{part}"].double()
            new = sheet.put(f"base_model.model.proj_out.{key}{part}", old + 0.1 * sheet.noise(*old.shape) / old.shape[-1] ** 0.5)
            sheet.change(f"head.head.{part}", new - old)
        sheet.file = "adapter_model.safetensors"
        sheet.config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "modules_to_save": ["proj_out"]}

    return write


def convolution(sheet: Sheet) -> None:
    """Low rank over the window of the patch embedding: down (R, in, 1, 2, 2), up (out, R, 1, 1, 1)."""
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=torch.tensor(2.0))
    weight, name = sheet.weights["patch_embedding.weight"], "lora_unet_patch_embedding"
    down = sheet.put(f"{name}.lora_down.weight", sheet.noise(4, *weight.shape[1:]) / 8)
    up = sheet.put(f"{name}.lora_up.weight", 0.3 * sheet.noise(len(weight), 4, 1, 1, 1))
    sheet.tensors[f"{name}.alpha"] = torch.tensor(2.0)
    sheet.change("patch_embedding.weight", up.flatten(1) @ down.flatten(1) * 0.5)


def stock_training(sheet: Sheet) -> None:
    """ComfyUI's own training node: every layer, norms and biases."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}", parts=KOHYA, alpha=torch.tensor(1.0))
        difference(sheet, f"{layer}.bias", f"diffusion_model.{layer}.diff_b")
    difference(sheet, "blocks.0.self_attn.norm_q.weight", "diffusion_model.blocks.0.self_attn.norm_q.diff")
    sheet.lora("text_embedding.2", "diffusion_model.text_embedding.2", parts=KOHYA, alpha=torch.tensor(1.0))


def ends(layers: tuple[str, ...], more: tuple[str, ...], naming: str):
    """Layers of blocks, and others outside of them or that read no tokens."""

    def write(sheet: Sheet) -> None:
        for layer in (*layers, *more):
            sheet.lora(layer, naming.format(layer))

    return write


def diffusers_ends(sheet: Sheet) -> None:
    for layer in (*WAN, "head.head", "time_embedding.0", "time_projection.1", "text_embedding.2"):
        sheet.lora(layer, f"transformer.{wan_name(layer)}")


def ltx_ends(sheet: Sheet) -> None:
    for layer in (*LTX, "adaln_single.linear", "patchify_proj", "proj_out", "caption_projection.linear_2"):
        sheet.lora(layer, f"transformer.{ltx_name(layer)}")


def cogvideox_modulation(sheet: Sheet) -> None:
    for layer in (*COGVIDEOX, "blocks.0.norm1.linear", "blocks.1.norm2.linear"):
        sheet.lora(layer, f"transformer.{cogvideox_name(layer)}")


def hunyuan_diffusers_ends(sheet: Sheet) -> None:
    """The last modulation has scale and shift the other way round."""
    width = sheet.widths("final_layer.linear")[1]
    order = torch.cat([torch.arange(width, 2 * width), torch.arange(width)])
    sheet.lora("double_blocks.1.img_attn.proj", "transformer.transformer_blocks.1.attn.to_out.0")
    sheet.lora("double_blocks.0.img_mod.lin", "transformer.transformer_blocks.0.norm1.linear")
    sheet.lora("double_blocks.1.txt_mod.lin", "transformer.transformer_blocks.1.norm1_context.linear")
    sheet.lora("single_blocks.2.modulation.lin", "transformer.single_transformer_blocks.2.norm.linear")
    sheet.lora("final_layer.linear", "transformer.proj_out")
    sheet.lora("final_layer.adaLN_modulation.1", "transformer.norm_out.linear", order=order)


def hunyuan_own_names(sheet: Sheet) -> None:
    """As HunyuanVideo's own code calls its embedders and its text refiner."""
    refiner = "txt_in.individual_token_refiner.blocks.0"
    names = {
        "double_blocks.1.img_attn.proj": "double_blocks.1.img_attn_proj", "double_blocks.0.img_mod.lin": "double_blocks.0.img_mod.linear",
        "time_in.in_layer": "time_in.mlp.0", "guidance_in.out_layer": "guidance_in.mlp.2", "vector_in.in_layer": "vector_in.in_layer",
        "txt_in.t_embedder.in_layer": "txt_in.t_embedder.mlp.0", "txt_in.c_embedder.in_layer": "txt_in.c_embedder.linear_1",
        f"{refiner}.self_attn.qkv": f"{refiner}.self_attn_qkv", f"{refiner}.self_attn.proj": f"{refiner}.self_attn_proj",
        f"{refiner}.mlp.0": f"{refiner}.mlp.fc1", "final_layer.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
    }  # fmt: skip
    for layer, name in names.items():
        sheet.lora(layer, f"diffusion_model.{name}", alpha=torch.tensor(2.0))


def h3_diffusers_ends(sheet: Sheet) -> None:
    parts = h3_parts(sheet.widths("blocks.0.attn.qkv_proj")[0] // 3, sheet.widths("blocks.1.mlp.fc1")[0] // 2)
    for part in parts:
        sheet.lora(part.layer, f"transformer.{part.name}", rows=part.rows, order=part.order)
    sheet.lora("blocks.0.adaln_proj.linear", "transformer.transformer_blocks.0.adaln_proj.linear")
    sheet.lora("token_refiner.blocks.0.attn.out_proj", "transformer.token_refiner.refiner_blocks.0.attn.to_out.0")
    sheet.lora("final_layer.video_out", "transformer.proj_out")


def vace(acts: bool):
    def write(sheet: Sheet) -> None:
        for layer in WAN:
            sheet.lora(layer, f"diffusion_model.{layer}")
        for layer in ("vace_blocks.0.self_attn.q", "vace_blocks.1.ffn.0", "vace_blocks.0.after_proj"):
            if acts:
                sheet.lora(layer, f"diffusion_model.{layer}")
            else:
                sheet.foreign(f"diffusion_model.{layer}", *sheet.widths("blocks.0.ffn.0" if "ffn" in layer else "blocks.0.self_attn.q"))
        sheet.left_out = [] if acts else ["vace"]

    return write


def image_layers(sheet: Sheet) -> None:
    """Of Wan 2.1, image to video, on a model that does not read an image so."""
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=torch.tensor(2.0))
    for layer in ("blocks.0.cross_attn.k_img", "blocks.1.cross_attn.v_img"):
        sheet.foreign(f"lora_unet_{flat(layer)}", *sheet.widths("blocks.0.cross_attn.k"), KOHYA)
        sheet.tensors[f"lora_unet_{flat(layer)}.alpha"] = torch.tensor(2.0)
    sheet.left_out = ["k_img|v_img|image"]


def image_embedding(sheet: Sheet) -> None:
    """Whole differences of wider layers, which do not fit."""
    for layer in WAN:
        sheet.lora(layer, f"diffusion_model.{layer}", parts=KOHYA)
    width = sheet.widths("blocks.0.self_attn.q")[0]
    sheet.put("diffusion_model.patch_embedding.diff", 0.1 * sheet.noise(width, 36, 1, 2, 2))
    sheet.put("diffusion_model.img_emb.proj.0.diff", 0.1 * sheet.noise(1280))
    sheet.foreign("diffusion_model.blocks.0.cross_attn.k_img", width, width, KOHYA)
    sheet.put("diffusion_model.blocks.0.cross_attn.norm_k_img.diff", 0.1 * sheet.noise(width))
    sheet.left_out = ["patch_embedding", "img_emb|k_img"]


def on_images(sheet: Sheet) -> None:
    for layer in (*WAN, "blocks.0.cross_attn.k_img", "blocks.2.cross_attn.v_img", "img_emb.proj.1"):
        sheet.lora(layer, f"diffusion_model.{layer}")


def text_encoder(sheet: Sheet) -> None:
    for layer in WAN:
        sheet.lora(layer, f"lora_unet_{flat(layer)}", parts=KOHYA, alpha=torch.tensor(2.0))
    for name in ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te_blocks_0_attn_q"):
        sheet.foreign(name, 64, 64, KOHYA)
        sheet.tensors[f"{name}.alpha"] = torch.tensor(2.0)
    sheet.left_out = ["text encoder"]


def text_encoder_of_peft(sheet: Sheet) -> None:
    for layer in HUNYUAN:
        sheet.lora(layer, f"diffusion_model.{layer}")
    for name in (
        "text_encoder.layers.0.self_attn.q_proj",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
        "text_encoders.clip_l.transformer.x",
    ):
        sheet.foreign(name, 64, 64)
    sheet.left_out = ["text encoder"]


HUNYUAN_ENDS = (
    "double_blocks.0.img_mod.lin",
    "single_blocks.2.modulation.lin",
    "txt_in.individual_token_refiner.blocks.0.self_attn.qkv",
    "final_layer.linear",
    "img_in.proj",
    "vector_in.in_layer",
)
NATIVE = "diffusion_model.{}"
FORMS = (
    Form("low rank with differences of norms, biases, modulation, patches", "lightx2v", "wan", lightx2v),
    Form("low rank with differences of norms and biases", "KJNodes extract", "wan", kjnodes),
    Form("whole differences of layers inside and outside of blocks", "KJNodes extract, full", "wan", kjnodes_full),
    Form("w_norm and b_norm", "LyCORIS train_norm", "wan", norms_of_lycoris),
    Form("set_weight", "ComfyUI", "wan", set_weight),
    Form("modules_to_save", "peft save_pretrained", "wan", modules_to_save("")),
    Form("modules_to_save.default of a raw state dict", "peft state_dict()", "wan", modules_to_save("modules_to_save.default.")),
    Form("patch embedding as a convolution", "LyCORIS conv", "wan", convolution),
    Form("every layer, biases, norms", "ComfyUI Train LoRA", "wan", stock_training),
    Form(
        "head and embeddings",
        "diffusion-pipe, CausVid",
        "wan",
        ends(WAN, ("head.head", "text_embedding.0", "time_embedding.0", "time_projection.1"), NATIVE),
    ),
    Form("head and embeddings, diffusers names", "diffusers", "wan", diffusers_ends),
    Form("CogVideoX, modulation", "diffusers", "cogvideox", cogvideox_modulation),
    Form(
        "LTX-Video, adaln_single, patchify_proj, proj_out",
        "LTX-Video-Trainer",
        "ltxv",
        ends(LTX, ("adaln_single.linear", "patchify_proj", "proj_out", "caption_projection.linear_1"), NATIVE),
    ),
    Form("LTX-Video, time_embed, proj_in, proj_out, diffusers names", "LTX-Video-Trainer", "ltxv", ltx_ends),
    Form(
        "HunyuanVideo, modulation, refiner, head",
        "diffusion-pipe",
        "hunyuan",
        ends(HUNYUAN, tuple(one for one in HUNYUAN_ENDS if one != "img_in.proj"), NATIVE),
    ),
    Form("HunyuanVideo, embedders and refiner, its own names", "OneTrainer comfy, full", "hunyuan", hunyuan_own_names),
    Form("HunyuanVideo, modulation and head, diffusers names", "diffusers", "hunyuan", hunyuan_diffusers_ends),
    Form(
        "Kandinsky 5, modulation and text blocks",
        "musubi-tuner",
        "kandinsky5",
        ends(
            KANDINSKY,
            (
                "visual_transformer_blocks.0.visual_modulation.out_layer",
                "text_transformer_blocks.0.self_attention.to_query",
                "out_layer.out_layer",
            ),
            NATIVE,
        ),
    ),
    Form(
        "MiniMax-H3, modulation, refiner, head",
        "musubi-tuner",
        "h3",
        ends(H3, ("blocks.0.adaln_proj.linear", "token_refiner.blocks.0.attn.qkv_proj", "final_layer.video_out", "condition_proj"), NATIVE),
    ),
    Form("MiniMax-H3, modulation, refiner, head, diffusers names", "diffusers", "h3", h3_diffusers_ends),
    Form("VACE blocks on VACE", "VACE trainers", "wan_vace", vace(True)),
    Form("VACE blocks on plain Wan", "VACE trainers", "wan", vace(False)),
    Form("image layers of Wan 2.1 I2V on text to video", "musubi-tuner", "wan22_t2v", image_layers),
    Form("image embedding of Wan 2.1 I2V on text to video", "lightx2v", "wan", image_embedding),
    Form("image layers on Wan 2.1 I2V", "diffusion-pipe", "wan21_i2v", on_images),
    Form("text encoder beside", "kohya", "wan", text_encoder),
    Form("text encoder beside, peft names", "diffusers", "hunyuan", text_encoder_of_peft),
)
