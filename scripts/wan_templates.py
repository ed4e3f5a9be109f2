"""Templates for Wan 2.1: train a pair, sample with one, blend two LoRAs."""

from __future__ import annotations

from canvas_format import Node, Output, Sheet
from template_nodes import STRIP, TALL, WIDE, blend_two, download, loss_graph, save_video, settings_node, trainer_node
from template_notes import APPLY, TRAIN, TWO_LORAS, WAN_MODEL, WAN_TEXT, WAN_VAE

WAN_SOURCE = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN_NEGATIVE = "blurry, low quality, static, overexposed, watermark, text, deformed"
WAN_FRAMES, WAN_FPS = 33, 16.0
WAN_SIZE = {"width": 480, "height": 320}


def train_on_wan(sheet: Sheet) -> None:
    sheet.note(TRAIN, height=560)
    model, clip, vae = _wan_models(sheet)
    sheet.group("Data")
    photos = sheet.node("DualRealLoadPhotos", "Photos of the identity", extra_height=STRIP, folder="my_identity")
    clips = sheet.node("DualRealLoadClips", "Clips of the motion", folder="my_motion")
    prompt = sheet.node("CLIPTextEncode", "Prompt of the previews", clip=clip, text="sks dog is dancing in a park")
    sheet.column()
    motion_size = {**WAN_SIZE, "frames": WAN_FRAMES, "fps": WAN_FPS}
    models = {"vae": vae, "clip": clip}
    given = {name: photos[name] for name in ("images", "texts", "masks", "names")}
    identity = sheet.node("DualRealIdentityDataset", extra_height=STRIP, **given, **models, **WAN_SIZE)
    motion = sheet.node("DualRealMotionDataset", extra_height=STRIP, videos=clips["videos"], texts=clips["texts"], **models, **motion_size)
    sheet.group("Train", width=400)
    settings = settings_node(sheet, {"preview_every": 100})
    trainer = trainer_node(sheet, model, clip, identity, motion, settings, "my pair", prompt["CONDITIONING"], vae, WIDE)
    sheet.column()
    loss_graph(sheet, trainer)
    sheet.node("DualRealSavePair", pair=trainer["pair"], filename_prefix="my_pair", consent="")


def apply_a_pair(sheet: Sheet) -> None:
    sheet.note(APPLY, height=400)
    model, clip, vae = _wan_models(sheet)
    sheet.group("Blend")
    pair = sheet.node("DualRealLoadPair", name="my_pair_00001_.safetensors")
    applied = sheet.node("DualRealApplyStageBlender", model=model, pair=pair["pair"])
    _sample_wan(sheet, applied, clip, vae, "sks dog is dancing in a park", "dualreal/fused")


def blend_two_loras(sheet: Sheet) -> None:
    sheet.note(TWO_LORAS, height=460)
    model, clip, vae = _wan_models(sheet)
    applied = blend_two(sheet, model, "identity_lora.safetensors", "motion_lora.safetensors")
    _sample_wan(sheet, applied, clip, vae, "sks dog is dancing in a park", "dualreal/two_loras")


def _wan_models(sheet: Sheet) -> tuple[Output, Output, Output]:
    sheet.group("Models", width=380)
    model = sheet.node("UNETLoader", properties=_from_hub(WAN_MODEL, "diffusion_models"), unet_name=WAN_MODEL)
    clip = sheet.node("CLIPLoader", properties=_from_hub(WAN_TEXT, "text_encoders"), clip_name=WAN_TEXT, type="wan")
    vae = sheet.node("VAELoader", properties=_from_hub(WAN_VAE, "vae"), vae_name=WAN_VAE)
    return model["MODEL"], clip["CLIP"], vae["VAE"]


def _from_hub(name: str, folder: str) -> dict[str, object]:
    return download(f"{WAN_SOURCE}/{folder}", folder, name)


def _sample_wan(sheet: Sheet, applied: Node, clip: Output, vae: Output, prompt: str, prefix: str) -> None:
    sheet.group("Sample", width=380)
    positive = sheet.node("CLIPTextEncode", "Prompt", clip=clip, text=prompt)
    negative = sheet.node("CLIPTextEncode", "Negative prompt", clip=clip, text=WAN_NEGATIVE)
    empty = sheet.node("EmptyHunyuanLatentVideo", "Empty video", **WAN_SIZE, length=WAN_FRAMES, batch_size=1)
    sheet.column()
    sample = sheet.node(
        "KSampler", model=applied["model"], seed=0, steps=30, cfg=6.0, sampler_name="uni_pc", scheduler="simple",
        positive=positive["CONDITIONING"], negative=negative["CONDITIONING"], latent_image=empty["LATENT"],
    )  # fmt: skip
    frames = sheet.node("VAEDecode", samples=sample["LATENT"], vae=vae)
    sheet.group("Compare", width=400)
    save_video(sheet, frames["IMAGE"], WAN_FPS, prefix)
    sheet.node("DualRealBlendMap", extra_height=TALL, model=applied["model"], latent=sample["LATENT"])
