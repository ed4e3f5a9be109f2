"""Writes workflows/ (canvas format), workflows/api/ (API format) and subgraphs/ from the graphs described here.

    python scripts/make_workflows.py http://127.0.0.1:8188     a running ComfyUI with this pack says what its nodes look like

Run it after a node's inputs changed; the tests compare what it wrote. `scripts/make_thumbnails.py` draws the pictures.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from blueprint_format import Port, blueprint
from canvas_format import COLUMN_WIDTH, Node, ObjectInfo, Output, Sheet
from large_models import ltx23, minimax_h3, wan22_4_steps
from template_nodes import TALL, WIDE, download, save_video

ROOT = Path(__file__).resolve().parents[1]

Captioned = tuple[Output, Output]

WAN_SOURCE = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN_MODEL, WAN_TEXT, WAN_VAE = "wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"
WAN_NEGATIVE = "blurry, low quality, static, overexposed, watermark, text, deformed"
WAN_FRAMES, WAN_FPS = 33, 16.0
WAN_SIZE = {"width": 480, "height": 320}
TOY_FPS = 10.0
TOY_SAMPLER = {"steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
TOY_SETTINGS = {"steps": 800, "rank": 32, "learning_rate": 0.002, "gradient_checkpointing": False, "preview_every": 50}
TOY_OPTIONS = {"motion_ratio": 0.4, "identity_batch": 4, "motion_batch": 4, "warmup_steps": 20}
TOY_IDENTITY = {"width": 32, "height": 32, "num_crops": 4, "crop_margin": 0.5}
TOY_MOTION = {"width": 32, "height": 32, "frames": 9, "fps": TOY_FPS, "max_segments": 1}

QUICK_START_NOTE = """# Who, and how it moves

**Press Run.** Nothing is downloaded. In two to three minutes on a CPU this graph

1. takes photos of a figure and clips of a motion that the small embedded model has never seen (**Data**),
2. trains both together (**Train**; the trainer shows loss curves and samples while it works),
3. samples one prompt four times with one seed: the plain model, the identity alone, the motion alone, both (**Sample**),
4. scores the four, saves the fused video, and shows how the two sides were weighed (**Compare**).

## Try
- Another figure, motion or seed in **Example Data**.
- The strengths in **Apply StageBlender**: training is kept, only sampling runs again.
- Stop while it trains and press Run again: it goes on at the very step.

## Swap in your own
Replace **Load Embedded Model** by the loaders of Wan, LTX-Video, HunyuanVideo or CogVideoX and **Example Data** by
*Load Photos* and *Load Clips*; every other wire stays. Then set the sizes in both datasets to those
of your model, and switch gradient_checkpointing on. Template 2 is that graph for Wan.
"""
WAN_TRAIN_NOTE = f"""# Train a pair on Wan 2.1

1. Put 3 to 20 photos of one subject in `input/my_identity`, each with a caption in a `.txt` of the same name. Name the
   subject by a trigger word: *a photo of sks dog*.
2. Put 3 to 20 clips of one motion, by other subjects, in `input/my_motion`, captioned too: *a cat is dancing*.
3. Choose both folders in **Data**, write a prompt that joins them, press Run.

**Save Pair** writes `models/dualreal/my_pair_00001_.safetensors`; template 3 samples with it. Say in *consent* who agreed to
the use of the pictures: the note stays in the file.

Runs are kept in `output/dualreal/runs`. Stopped, the same graph goes on where it was; with other settings it starts anew.

## Models
- `diffusion_models/{WAN_MODEL}`
- `text_encoders/{WAN_TEXT}`
- `vae/{WAN_VAE}`

## Swap in
Any other video model in the three loaders; then set width, height, frames and fps of the datasets to what it was made for
(LTX-Video: 24 fps, sides by 32; HunyuanVideo: 24 fps; CogVideoX: 8 fps). Short of memory: smaller sides, fewer frames.
"""
APPLY_NOTE = """# Sample with a trained pair

1. Train a pair with template 2, or put a file into `models/dualreal`, and choose it in **Load Pair**.
2. Name the subject in the prompt as its captions did (*sks dog*), and describe the motion as the clips' captions did.

**Apply StageBlender** weighs identity and motion at every step and depth, as the pair has learned. Too little likeness: raise
identity_strength; too little movement: raise motion_strength. **Blend Map** shows the weights that were used.

## Swap in
The model the pair was trained on, in the three loaders; LoRAs of other kinds (style, fast sampling) go between Load
Diffusion Model and Apply StageBlender. CogVideoX is sampled with *SamplerCustom* and *VOIDSampler*, not with KSampler.
"""
LORAS_NOTE = """# Two LoRAs that know nothing of each other

1. Put a LoRA of a subject and a LoRA of a motion, both for the loaded model, into `models/loras`, and choose them.
2. Write a prompt with the trigger words of both.

Stacked at full strength, two LoRAs fight. **Schedule Blend** shares out each step instead: *movement first* lets the motion lead
while the picture takes shape and the identity while details are drawn. Choose *curves* to draw the shares yourself: left to
right over denoising (stage) or over the model's blocks (depth), up means identity. The page shows curves with *Nodes 2.0* on.

## Swap in
- **Load Pair** instead of one LoRA: the identity of one training with the motion of another.
- **Fixed Blend** instead of Schedule Blend: one share throughout.
- Any video model in the three loaders, with LoRAs made for it.
"""
BATCH_NOTE = """# Many identities x many motions

This graph trains and samples one pair from two folders below `input`. It runs from here, but it is made to be queued:

    python workflows/api/batch.py workflows/api/5_batch.json jobs.csv --server http://127.0.0.1:8188

with a `jobs.csv` such as

    identity,motion,prompt
    dogs/rex,dance,a photo of sks dog dancing
    dogs/rex,jump,a photo of sks dog jumping

It follows each job, collects the videos in a folder and writes `results.json`. A job with a mistake is reported and left out.

## Swap in
Your model in place of **Load Embedded Model**, its sizes in both datasets. Then *Export (API)* and give that file to batch.py: it
finds *Load Image-Text* or *Load Photos*, *Load Video-Text* or *Load Clips*, the *Prompt*, the trainer and the savers by kind and title.
"""


def quick_start(sheet: Sheet) -> None:
    sheet.note(QUICK_START_NOTE, height=560)
    sheet.group("Data")
    base = sheet.node("DualRealLoadEmbeddedModel")
    examples = sheet.node("DualRealExampleData", identity="vex", motion="figure-eight", seed=0)
    sheet.node("PreviewImage", "Photos of the identity", extra_height=WIDE, images=examples["images"])
    sheet.column()
    prompt = sheet.node("CLIPTextEncode", "Prompt", clip=base["clip"], text=examples["prompt"])
    photos, clips = (examples["images"], examples["image_texts"]), (examples["videos"], examples["video_texts"])
    identity, motion = _datasets(sheet, base["vae"], base["clip"], photos, clips, TOY_IDENTITY, TOY_MOTION)
    sheet.group("Train", width=400)
    settings = _settings(sheet, TOY_SETTINGS, TOY_OPTIONS)
    trainer = _trainer(sheet, base["model"], identity, motion, settings, "quick start", prompt["CONDITIONING"], base["vae"], WIDE)
    sheet.group("Sample")
    negative = sheet.node("CLIPTextEncode", "Negative prompt", clip=base["clip"], text="")
    seed = sheet.node("PrimitiveInt", "Seed of all four", value=1000)
    applied = [
        sheet.node("DualRealApplyStageBlender", title, model=base["model"], pair=trainer["pair"], **strengths)
        for title, strengths in (("Identity only", {"motion_strength": 0.0}), ("Motion only", {"identity_strength": 0.0}), ("Fused", {}))
    ]
    names = ["base", "identity only", "motion only", "fused"]
    sheet.column()
    models = [base["model"], *(node["model"] for node in applied)]
    samples = [
        sheet.node(
            "KSampler", f"Sample: {name}", model=model, seed=seed["INT"], positive=prompt["CONDITIONING"],
            negative=negative["CONDITIONING"], latent_image=base["latent"], **TOY_SAMPLER,
        )
        for name, model in zip(names, models, strict=True)
    ]  # fmt: skip
    sheet.column(200)
    videos = [
        sheet.node("VAEDecode", f"Decode: {name}", samples=sample["LATENT"], vae=base["vae"])
        for name, sample in zip(names, samples, strict=True)
    ]
    sheet.group("Compare", width=240)
    images = sheet.node("CreateList", "Four videos", **{f"inputs.input{index}": video["IMAGE"] for index, video in enumerate(videos)})
    labels = [sheet.node("PrimitiveString", "Name", value=name) for name in names]
    rows = sheet.node("CreateList", "Their names", **{f"inputs.input{index}": label["STRING"] for index, label in enumerate(labels)})
    sheet.column(400)
    scores = sheet.node(
        "DualRealEvaluate", extra_height=TALL, images=_only(images), identity_references=examples["images"],
        motion_references=examples["videos"], metric="toy world", names=_only(rows),
    )  # fmt: skip
    sheet.node("SaveImage", "Scores", extra_height=TALL, images=scores["table"], filename_prefix="dualreal/quick_start_scores")
    sheet.column(400)
    enlarged = sheet.node("ImageScale", image=videos[-1]["IMAGE"], upscale_method="nearest-exact", width=256, height=256, crop="disabled")
    save_video(sheet, enlarged["IMAGE"], TOY_FPS, "dualreal/quick_start")
    sheet.node("DualRealBlendMap", extra_height=TALL, model=applied[-1]["model"], latent=samples[-1]["LATENT"])


def train_on_wan(sheet: Sheet) -> None:
    sheet.note(WAN_TRAIN_NOTE, height=640)
    model, clip, vae = _wan_models(sheet)
    sheet.group("Data")
    photos = sheet.node("DualRealLoadPhotos", "Photos of the identity", folder="my_identity")
    clips = sheet.node("DualRealLoadClips", "Clips of the motion", folder="my_motion")
    prompt = sheet.node("CLIPTextEncode", "Prompt of the previews", clip=clip, text="sks dog is dancing in a park")
    sheet.column()
    motion_size = {**WAN_SIZE, "frames": WAN_FRAMES, "fps": WAN_FPS}
    models = {"vae": vae, "clip": clip}
    given = {name: photos[name] for name in ("images", "texts", "masks", "names")}
    identity = sheet.node("DualRealIdentityDataset", **given, **models, **WAN_SIZE)
    motion = sheet.node("DualRealMotionDataset", videos=clips["videos"], texts=clips["texts"], **models, **motion_size)
    sheet.group("Train", width=400)
    settings = _settings(sheet, {"preview_every": 100})
    trainer = _trainer(sheet, model, identity, motion, settings, "my pair", prompt["CONDITIONING"], vae, WIDE)
    sheet.node("DualRealSavePair", pair=trainer["pair"], filename_prefix="my_pair", consent="")


def apply_a_pair(sheet: Sheet) -> None:
    sheet.note(APPLY_NOTE, height=400)
    model, clip, vae = _wan_models(sheet)
    sheet.group("Blend")
    pair = sheet.node("DualRealLoadPair", name="my_pair_00001_.safetensors")
    applied = sheet.node("DualRealApplyStageBlender", model=model, pair=pair["pair"])
    _sample_wan(sheet, applied, clip, vae, "sks dog is dancing in a park", "dualreal/fused")


def blend_two_loras(sheet: Sheet) -> None:
    sheet.note(LORAS_NOTE, height=460)
    model, clip, vae = _wan_models(sheet)
    sheet.group("Blend")
    identity = sheet.node("DualRealLoadIdentityLora", model=model, lora="identity_lora.safetensors")
    motion = sheet.node("DualRealLoadMotionLora", model=model, lora="motion_lora.safetensors")
    pair = sheet.node("DualRealCombine", identity=identity["pair"], motion=motion["pair"])
    schedule = sheet.node("DualRealScheduleBlend", preset="movement first")
    sheet.column()
    applied = sheet.node("DualRealApplyStageBlender", model=model, pair=pair["pair"], blend=schedule["blend"])
    _sample_wan(sheet, applied, clip, vae, "sks dog is dancing in a park", "dualreal/two_loras")


def batch(sheet: Sheet) -> None:
    sheet.note(BATCH_NOTE, width=520, height=520)
    sheet.group("Data")
    base = sheet.node("DualRealLoadEmbeddedModel")
    photos, clips = _folders(sheet)
    prompt = sheet.node("CLIPTextEncode", "Prompt", clip=base["clip"], text="a figure * spirals on mint")
    negative = sheet.node("CLIPTextEncode", "Negative prompt", clip=base["clip"], text="")
    sheet.column()
    identity, motion = _datasets(sheet, base["vae"], base["clip"], photos, clips, TOY_IDENTITY, TOY_MOTION)
    sheet.group("Train", width=400)
    settings = _settings(sheet, TOY_SETTINGS | {"preview_every": 0}, TOY_OPTIONS)
    trainer = _trainer(sheet, base["model"], identity, motion, settings, "batch", extra_height=TALL)
    sheet.node("DualRealSavePair", pair=trainer["pair"], filename_prefix="batch/pair", consent="")
    sheet.group("Sample")
    applied = sheet.node("DualRealApplyStageBlender", model=base["model"], pair=trainer["pair"])
    sample = sheet.node(
        "KSampler", model=applied["model"], seed=1000, positive=prompt["CONDITIONING"], negative=negative["CONDITIONING"],
        latent_image=base["latent"], **TOY_SAMPLER,
    )  # fmt: skip
    frames = sheet.node("VAEDecode", samples=sample["LATENT"], vae=base["vae"])
    sheet.column(400)
    enlarged = sheet.node("ImageScale", image=frames["IMAGE"], upscale_method="nearest-exact", width=256, height=256, crop="disabled")
    save_video(sheet, enlarged["IMAGE"], TOY_FPS, "batch/fused")


def train_and_blend(object_info: ObjectInfo) -> dict[str, object]:
    """The blueprint: settings, trainer and Apply StageBlender as one node."""
    sheet = Sheet("train_and_blend", object_info)
    sheet.column()
    settings = sheet.node("DualRealTrainingSettings")
    sheet.column()
    wired = ("model", "identity_latents", "identity_conditioning", "motion_latents", "motion_conditioning")
    optional = ("identity_masks", "motion_references", "preview_conditioning", "vae")
    trainer = sheet.node("DualRealJointTrainer", extra_height=WIDE, settings=settings["settings"])
    sheet.column()
    applied = sheet.node("DualRealApplyStageBlender", pair=trainer["pair"])
    kinds = {socket.name: socket.type for socket in trainer.sockets}
    ports = [
        Port(name, kinds[name], [(trainer, name)] + [(applied, name)] * (name == "model"), name in optional) for name in (*wired, *optional)
    ]
    shown = [(trainer, "name"), *((settings, name) for name in ("steps", "adapter", "rank", "learning_rate", "seed"))]
    shown += [(applied, "identity_strength"), (applied, "motion_strength")]
    outputs = [applied["model"], trainer["pair"], trainer["loss_map"]]
    description = "Trains an identity and a motion together and puts both on the model, which then goes into any sampler."
    return blueprint(sheet, "DualReal Train and Blend", description, ports, outputs, shown)


def _folders(sheet: Sheet) -> tuple[Captioned, Captioned]:
    photos = sheet.node("LoadImageTextDataSetFromFolder", "Photos of the identity", folder="my_identity")
    clips = sheet.node("LoadVideoTextDataSetFromFolder", "Clips of the motion", folder="my_motion")
    return (photos["images"], photos["texts"]), (clips["videos"], clips["texts"])


def _datasets(
    sheet: Sheet, vae: Output, clip: Output, photos: Captioned, clips: Captioned, identity_sizes: dict, motion_sizes: dict
) -> tuple[Node, Node]:
    models = {"vae": vae, "clip": clip}
    identity = sheet.node("DualRealIdentityDataset", images=photos[0], texts=photos[1], **models, **identity_sizes)
    motion = sheet.node("DualRealMotionDataset", videos=clips[0], texts=clips[1], **models, **motion_sizes)
    return identity, motion


def _settings(sheet: Sheet, settings: dict, options: dict | None = None) -> Output:
    wired = {} if options is None else {"options": sheet.node("DualRealTrainingOptions", **options)["options"]}
    return sheet.node("DualRealTrainingSettings", **settings, **wired)["settings"]


def _trainer(
    sheet: Sheet, model: Output, identity: Node, motion: Node, settings: Output, name: str, prompt: Output | None = None,
    vae: Output | None = None, extra_height: int = 0,
) -> Node:  # fmt: skip
    preview = {} if prompt is None else {"preview_conditioning": prompt, "vae": vae}
    trainer = sheet.node(
        "DualRealJointTrainer", extra_height=extra_height, model=model, settings=settings, name=name,
        identity_latents=identity["latents"], identity_conditioning=identity["conditioning"], identity_masks=identity["masks"],
        motion_latents=motion["latents"], motion_conditioning=motion["conditioning"], **preview,
    )  # fmt: skip
    sheet.column(COLUMN_WIDTH)
    sheet.node("LossGraphNode", extra_height=TALL, loss=trainer["loss_map"], filename_prefix="dualreal/loss")
    return trainer


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


def _only(node: Node) -> Output:
    return Output(node, 0)


TEMPLATES = {
    "1_quick_start": quick_start,
    "2_train_on_wan": train_on_wan,
    "3_apply_a_pair": apply_a_pair,
    "4_blend_two_loras": blend_two_loras,
    "5_batch": batch,
    "6_wan22_4_steps": wan22_4_steps,
    "7_ltx23": ltx23,
    "8_minimax_h3": minimax_h3,
}


def main(server: str) -> None:
    with urllib.request.urlopen(f"{server.rstrip('/')}/object_info") as answer:
        object_info = json.load(answer)
    for name, describe in TEMPLATES.items():
        sheet = Sheet(name, object_info)
        describe(sheet)
        _write(ROOT / "workflows" / f"{name}.json", sheet.canvas())
        _write(ROOT / "workflows" / "api" / f"{name}.json", sheet.api())
    _write(ROOT / "subgraphs" / "DualReal Train and Blend.json", train_and_blend(object_info))


def _write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
