"""Templates for the models that most people run: Wan 2.2 in 4 steps, LTX-2.3, MiniMax-H3. Each animates a picture."""

from __future__ import annotations

from canvas_format import Sheet
from template_nodes import TALL, blend_two, download, save_video
from template_notes import (
    H3,
    H3_AUDIO,
    H3_LORA,
    H3_MODEL,
    H3_STEPS,
    H3_TEXT,
    H3_VAE,
    LTX,
    LTX_LORA,
    LTX_MODEL,
    LTX_TEXT,
    LTX_UPSCALER,
    WAN22,
    WAN22_LORA,
    WAN22_MODEL,
    WAN_TEXT,
    WAN_VAE,
)

HUB = "https://huggingface.co"
FIRST_FRAME = "example.png"
MOTION_PROMPT = "sks dog is dancing in a park"

WAN22_HUB = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files"
WAN22_STEPS = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
WAN22_SWITCH = 2  # the step at which the second expert takes over

LTX_SOURCE = f"{HUB}/Lightricks/LTX-2.3-fp8/resolve/main"
LTX_SIZE = {"width": 640, "height": 352}  # of the first pass; the second one doubles it
LTX_FRAMES, LTX_FPS = 121, 24.0
LTX_SIGMAS = ("1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0", "0.85, 0.7250, 0.4219, 0.0")

H3_HUB = f"{HUB}/Comfy-Org/MiniMax-H3/resolve/main"
H3_SIZE, H3_FPS = {"width": 1344, "height": 768, "length": 124}, 24.0


def wan22_4_steps(sheet: Sheet) -> None:
    sheet.note(WAN22, height=560)
    sheet.group("Models", width=400)
    experts = []
    for noise in ("high", "low"):
        name, lora = WAN22_MODEL.format(noise), WAN22_LORA.format(noise)
        kept = download(f"{WAN22_HUB}/diffusion_models", "diffusion_models", name)
        model = sheet.node("UNETLoader", f"Load {noise} noise model", properties=kept, unet_name=name)
        kept = download(f"{WAN22_HUB}/loras", "loras", lora)
        experts.append(
            sheet.node("LoraLoaderModelOnly", f"4 steps, {noise} noise", properties=kept, model=model["MODEL"], lora_name=lora)["MODEL"]
        )
    source = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/text_encoders"
    clip = sheet.node("CLIPLoader", properties=download(source, "text_encoders", WAN_TEXT), clip_name=WAN_TEXT, type="wan")
    vae = sheet.node("VAELoader", properties=download(f"{WAN22_HUB}/vae", "vae", WAN_VAE), vae_name=WAN_VAE)
    names = ("wan22_identity_high_noise.safetensors", "wan22_motion_high_noise.safetensors")
    both = blend_two(sheet, experts[0], *names, low_noise_model=experts[1])
    applied = (both["model"], both["low_noise_model"])
    sheet.group("First frame and prompt", width=380)
    frame = sheet.node("LoadImage", "First frame", extra_height=TALL, image=FIRST_FRAME)
    texts = [
        sheet.node("CLIPTextEncode", title, clip=clip["CLIP"], text=text)["CONDITIONING"]
        for title, text in (("Prompt", MOTION_PROMPT), ("Negative prompt", ""))
    ]
    start = sheet.node(
        "WanImageToVideo", width=640, height=640, length=81, batch_size=1, vae=vae["VAE"], start_image=frame["IMAGE"],
        positive=texts[0], negative=texts[1],
    )  # fmt: skip
    sheet.group("Sample")
    shifted = [sheet.node("ModelSamplingSD3", f"Shift, {noise} noise", model=model, shift=5.0)["MODEL"] for noise, model in
               zip(("high", "low"), applied, strict=True)]  # fmt: skip
    prompts = {"positive": start["positive"], "negative": start["negative"]}
    first = sheet.node(
        "KSamplerAdvanced", "Sample, high noise", model=shifted[0], add_noise="enable", noise_seed=0, **WAN22_STEPS, **prompts,
        latent_image=start["latent"], start_at_step=0, end_at_step=WAN22_SWITCH, return_with_leftover_noise="enable",
    )  # fmt: skip
    sheet.column()
    second = sheet.node(
        "KSamplerAdvanced", "Sample, low noise", model=shifted[1], add_noise="disable", noise_seed=0, **WAN22_STEPS, **prompts,
        latent_image=first["LATENT"], start_at_step=WAN22_SWITCH, end_at_step=10000, return_with_leftover_noise="disable",
    )  # fmt: skip
    frames = sheet.node("VAEDecode", samples=second["LATENT"], vae=vae["VAE"])
    sheet.group("Compare", width=400)
    save_video(sheet, frames["IMAGE"], 16.0, "dualreal/wan22")
    sheet.node("DualRealBlendMap", extra_height=TALL, model=applied[0], low_noise_model=applied[1], latent=second["LATENT"])


def ltx23(sheet: Sheet) -> None:
    sheet.note(LTX, height=640)
    sheet.group("Models", width=400)
    checkpoint = download(LTX_SOURCE, "checkpoints", LTX_MODEL)
    base = sheet.node("CheckpointLoaderSimple", properties=checkpoint, ckpt_name=LTX_MODEL)
    kept = download(f"{HUB}/Comfy-Org/ltx-2.3/resolve/main/split_files/loras", "loras", LTX_LORA)
    model = sheet.node(
        "LoraLoaderModelOnly", "8 steps", properties=kept, model=base["MODEL"], lora_name=LTX_LORA, strength_model=0.5
    )["MODEL"]  # fmt: skip
    kept = download(f"{HUB}/Comfy-Org/ltx-2/resolve/main/split_files/text_encoders", "text_encoders", LTX_TEXT)
    clip = sheet.node("LTXAVTextEncoderLoader", properties=kept, text_encoder=LTX_TEXT, ckpt_name=LTX_MODEL)["CLIP"]
    sound = sheet.node("LTXVAudioVAELoader", properties=checkpoint, ckpt_name=LTX_MODEL)["Audio VAE"]
    kept = download(f"{HUB}/Lightricks/LTX-2.3/resolve/main", "latent_upscale_models", LTX_UPSCALER)
    upscaler = sheet.node("LatentUpscaleModelLoader", properties=kept, model_name=LTX_UPSCALER)["LATENT_UPSCALE_MODEL"]
    applied = blend_two(sheet, model, "ltx_identity_lora.safetensors", "ltx_motion_lora.safetensors")["model"]
    sheet.group("First frame and prompt", width=380)
    frame = sheet.node("LoadImage", "First frame", extra_height=TALL, image=FIRST_FRAME)
    picture = sheet.node("LTXVPreprocess", image=frame["IMAGE"], img_compression=18)["output_image"]
    texts = [
        sheet.node("CLIPTextEncode", title, clip=clip, text=text)["CONDITIONING"]
        for title, text in (("Prompt", f"{MOTION_PROMPT}, leaves rustle"), ("Negative prompt", ""))
    ]
    rated = sheet.node("LTXVConditioning", positive=texts[0], negative=texts[1], frame_rate=LTX_FPS)
    sheet.column()
    empty = sheet.node("EmptyLTXVLatentVideo", "Empty video", **LTX_SIZE, length=LTX_FRAMES, batch_size=1)["LATENT"]
    silence = sheet.node("LTXVEmptyLatentAudio", "Empty sound", audio_vae=sound, frames_number=LTX_FRAMES, frame_rate=LTX_FPS)["Latent"]
    guider = sheet.node("CFGGuider", model=applied, positive=rated["positive"], negative=rated["negative"], cfg=1.0)["GUIDER"]
    sampler = sheet.node("KSamplerSelect", sampler_name="euler")["SAMPLER"]
    made, streams = [], {"video_latent": empty, "audio_latent": silence}
    for index, (title, sigmas, strength) in enumerate(zip(("First pass", "Second pass"), LTX_SIGMAS, (0.7, 1.0), strict=True)):
        sheet.group(title)
        video = streams["video_latent"]
        if index:
            video = sheet.node("LTXVLatentUpsampler", samples=video, upscale_model=upscaler, vae=base["VAE"])["LATENT"]
        started = sheet.node("LTXVImgToVideoInplace", vae=base["VAE"], image=picture, latent=video, strength=strength)["latent"]
        both = {"video_latent": started, "audio_latent": streams["audio_latent"]}
        joined = sheet.node("LTXVConcatAVLatent", "Video and sound together", **both)["latent"]
        noise = sheet.node("RandomNoise", noise_seed=42)["NOISE"]
        steps = sheet.node("ManualSigmas", sigmas=sigmas)["SIGMAS"]
        sample = sheet.node("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=steps, latent_image=joined)
        made.append(sample["output"])
        parted = sheet.node("LTXVSeparateAVLatent", "Video and sound apart", av_latent=sample["output"])
        streams = {name: parted[name] for name in streams}
    sheet.group("Compare", width=400)
    tiles = {"tile_size": 768, "overlap": 64, "temporal_size": 4096, "temporal_overlap": 4}
    frames = sheet.node("VAEDecodeTiled", samples=streams["video_latent"], vae=base["VAE"], **tiles)["IMAGE"]
    audio = sheet.node("LTXVAudioVAEDecode", samples=streams["audio_latent"], audio_vae=sound)["Audio"]
    save_video(sheet, frames, LTX_FPS, "dualreal/ltx23", audio)
    sheet.column(400)
    for title, latent in zip(("first pass", "second pass"), made, strict=True):
        sheet.node("DualRealBlendMap", f"Blend Map, {title}", extra_height=TALL, model=applied, latent=latent)


def minimax_h3(sheet: Sheet) -> None:
    sheet.note(H3, height=600)
    sheet.group("Models", width=400)
    kept = download(f"{H3_HUB}/diffusion_models", "diffusion_models", H3_MODEL)
    model = sheet.node("UNETLoader", properties=kept, unet_name=H3_MODEL)["MODEL"]
    kept = download(f"{HUB}/lightx2v/Minimax-h3-Turbo/resolve/main", "loras", H3_LORA)
    model = sheet.node("LoraLoaderModelOnly", f"{H3_STEPS} steps", properties=kept, model=model, lora_name=H3_LORA)["MODEL"]
    kept = download(f"{H3_HUB}/text_encoders", "text_encoders", H3_TEXT)
    clip = sheet.node("CLIPLoader", properties=kept, clip_name=H3_TEXT, type="minimax")["CLIP"]
    vae, sound = (
        sheet.node("VAELoader", title, properties=download(f"{H3_HUB}/vae", "vae", name), vae_name=name)["VAE"]
        for title, name in (("Load video VAE", H3_VAE), ("Load sound VAE", H3_AUDIO))
    )
    applied = blend_two(sheet, model, "h3_identity_lora.safetensors", "h3_motion_lora.safetensors")["model"]
    sheet.group("First frame and prompt", width=380)
    frame = sheet.node("LoadImage", "First frame", extra_height=TALL, image=FIRST_FRAME)
    start = sheet.node(
        "MiniMaxH3ImageToVideo", "Prompt and size", clip=clip, vae=vae, prompt=f"{MOTION_PROMPT}, leaves rustle", **H3_SIZE,
        first_frame=frame["IMAGE"],
    )  # fmt: skip
    sheet.group("Sample")
    noise = sheet.node("RandomNoise", noise_seed=1)["NOISE"]
    guider = sheet.node("BasicGuider", model=applied, conditioning=start["positive"])["GUIDER"]
    sampler = sheet.node("KSamplerSelect", sampler_name="res_multistep")["SAMPLER"]
    steps = sheet.node("BasicScheduler", model=applied, scheduler="simple", steps=H3_STEPS, denoise=1.0)["SIGMAS"]
    sample = sheet.node(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=steps, latent_image=start["LATENT"]
    )["output"]  # fmt: skip
    frames = sheet.node("VAEDecode", samples=sample, vae=vae)["IMAGE"]
    audio = sheet.node("VAEDecodeAudio", samples=sample, vae=sound)["AUDIO"]
    sheet.group("Compare", width=400)
    save_video(sheet, frames, H3_FPS, "dualreal/minimax_h3", audio)
    sheet.node("DualRealBlendMap", extra_height=TALL, model=applied, latent=sample)
