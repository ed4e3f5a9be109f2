"""Templates on the embedded model: the quick start and the batch; and the blueprint."""

from __future__ import annotations

from canvas_format import Node, ObjectInfo, Output, Sheet, widgets_of
from subgraph_format import Subgraph, blueprint
from template_nodes import AUTO, SQUARE, STRIP, TALL, WIDE, loss_graph, save_video, settings_node, trainer_node
from template_notes import BATCH, QUICK_START

Captioned = tuple[Output, Output]

TOY_FPS = 10.0
FOUR = ("base", "identity only", "motion only", "fused")
TOY_SAMPLER = {"steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
TOY_SETTINGS = {"steps": 800, "rank": 32, "learning_rate": 0.002, "gradient_checkpointing": False, "preview_every": 50}
TOY_OPTIONS = {"motion_ratio": 0.4, "identity_batch": 4, "motion_batch": 4, "warmup_steps": 20}
TOY_IDENTITY = {"width": 32, "height": 32, "num_crops": 4, "crop_margin": 0.5}
TOY_MOTION = {"width": 32, "height": 32, "frames": 9, "fps": TOY_FPS, "max_segments": 1}


def quick_start(sheet: Sheet) -> None:
    sheet.note(("\n".join(QUICK_START),), height=760)
    sheet.group("Data")
    base = sheet.node("DualRealLoadEmbeddedModel")
    examples = sheet.node("DualRealExampleData", identity="vex", motion="figure-eight", seed=0)
    prompt = sheet.node("CLIPTextEncode", "Prompt", clip=base["clip"], text=examples["prompt"])
    sheet.column(360)
    photos, clips = (examples["images"], examples["image_texts"]), (examples["videos"], examples["video_texts"])
    identity, motion = _datasets(sheet, base["vae"], base["clip"], photos, clips, TOY_IDENTITY, TOY_MOTION)
    sheet.group("Train", width=400)
    settings = sheet.add(_toy_settings(sheet).host("Training Settings"))
    trainer = trainer_node(
        sheet, base["model"], base["clip"], identity, motion, settings["settings"], "quick start", prompt["CONDITIONING"], base["vae"], WIDE
    )  # fmt: skip
    sheet.group("Sample and compare", width=400)
    four = _four_ways(sheet).host(
        "Sample four ways and compare", model=base["model"], pair=trainer["pair"], clip=base["clip"], vae=base["vae"],
        positive=prompt["CONDITIONING"], latent=base["latent"], photos=examples["images"], clips=examples["videos"],
    )  # fmt: skip
    four = sheet.add(four)
    sheet.node("SaveImage", "Scores", extra_height=TALL, images=four["scores"], filename_prefix="dualreal/quick_start_scores")
    sheet.column(400)
    sheet.node("SaveVideo", extra_height=SQUARE, video=four["fused video"], filename_prefix="dualreal/quick_start", **AUTO)
    sheet.node("DualRealBlendMap", extra_height=TALL, model=four["fused model"], latent=four["fused latent"])


def _toy_settings(outer: Sheet) -> Subgraph:
    """Training Settings with the options that suit the embedded model."""
    shown = {"steps": ("INT", TOY_SETTINGS["steps"]), "learning_rate": ("FLOAT", TOY_SETTINGS["learning_rate"]), "seed": ("INT", 0)}
    inner = Subgraph(
        "Settings for the embedded model", "Training Settings and Training Options, as they suit a small model on a CPU.",
        outer.object_info, {}, shown, outer=outer,
    )  # fmt: skip
    inner.column()
    wired = {name: inner.ports[name] for name in shown}
    inner.outputs["settings"] = settings_node(inner, TOY_SETTINGS | wired, TOY_OPTIONS)
    return inner


def _four_ways(outer: Sheet) -> Subgraph:
    """One prompt and one seed, sampled by the plain model, each side alone, and both; scored."""
    wires = {
        "model": "MODEL", "pair": "DUALREAL_PAIR", "clip": "CLIP", "vae": "VAE", "positive": "CONDITIONING", "latent": "LATENT",
        "photos": "IMAGE", "clips": "VIDEO",
    }  # fmt: skip
    shown = {"seed": ("INT", 1000), "identity_strength": ("FLOAT", 1.0), "motion_strength": ("FLOAT", 1.0)}
    inner = Subgraph(
        "Sample four ways and compare",
        "Samples one prompt with one seed four times (the plain model, the identity alone, the motion alone, both) and scores the four.",
        outer.object_info, wires, shown, outer=outer,
    )  # fmt: skip
    given = inner.ports
    inner.column()
    negative = inner.node("CLIPTextEncode", "Negative prompt", clip=given["clip"], text="")
    strengths = {
        "Identity only": {"identity_strength": given["identity_strength"], "motion_strength": 0.0},
        "Motion only": {"identity_strength": 0.0, "motion_strength": given["motion_strength"]},
        "Fused": {"identity_strength": given["identity_strength"], "motion_strength": given["motion_strength"]},
    }
    wired = {name: given[name] for name in ("model", "pair")}
    applied = [inner.node("DualRealApplyStageBlender", title, **wired, **both) for title, both in strengths.items()]
    inner.column()
    models = [given["model"], *(node["model"] for node in applied)]
    samples = [
        inner.node(
            "KSampler", f"Sample: {name}", model=model, seed=given["seed"], positive=given["positive"],
            negative=negative["CONDITIONING"], latent_image=given["latent"], **TOY_SAMPLER,
        )
        for name, model in zip(FOUR, models, strict=True)
    ]  # fmt: skip
    inner.column(240)
    videos = [
        inner.node("VAEDecode", f"Decode: {name}", samples=sample["LATENT"], vae=given["vae"])
        for name, sample in zip(FOUR, samples, strict=True)
    ]
    inner.column(240)
    images = inner.node("CreateList", "Four videos", **{f"inputs.input{index}": video["IMAGE"] for index, video in enumerate(videos)})
    labels = [inner.node("PrimitiveString", "Name", value=name) for name in FOUR]
    rows = inner.node("CreateList", "Their names", **{f"inputs.input{index}": label["STRING"] for index, label in enumerate(labels)})
    inner.column(400)
    scores = inner.node(
        "DualRealEvaluate", extra_height=TALL, images=_only(images), identity_references=given["photos"],
        motion_references=given["clips"], metric="toy world", names=_only(rows),
    )  # fmt: skip
    enlarged = inner.node("ImageScale", image=videos[-1]["IMAGE"], upscale_method="nearest-exact", width=256, height=256, crop="disabled")
    video = inner.node("CreateVideo", images=enlarged["IMAGE"], fps=TOY_FPS)
    fused = {"fused video": video["VIDEO"], "fused model": applied[-1]["model"], "fused latent": samples[-1]["LATENT"]}
    inner.outputs = {"scores": scores["table"], **fused}
    return inner


def batch(sheet: Sheet) -> None:
    sheet.note(BATCH, 520, 520)
    sheet.group("Data")
    base = sheet.node("DualRealLoadEmbeddedModel")
    photos, clips = _folders(sheet)
    prompt = sheet.node("CLIPTextEncode", "Prompt", clip=base["clip"], text="a figure * spirals on mint")
    negative = sheet.node("CLIPTextEncode", "Negative prompt", clip=base["clip"], text="")
    sheet.column()
    identity, motion = _datasets(sheet, base["vae"], base["clip"], photos, clips, TOY_IDENTITY, TOY_MOTION)
    sheet.group("Train", width=400)
    settings = settings_node(sheet, TOY_SETTINGS | {"preview_every": 0}, TOY_OPTIONS)
    trainer = trainer_node(sheet, base["model"], base["clip"], identity, motion, settings, "batch", extra_height=TALL)
    sheet.column()
    loss_graph(sheet, trainer)
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
    shown = {
        "DualRealJointTrainer": ("name",),
        "DualRealTrainingSettings": ("steps", "adapter", "rank", "learning_rate", "seed"),
        "DualRealApplyStageBlender": ("identity_strength", "motion_strength"),
    }
    defaults = {kind: {widget.name: (widget.type, widget.value) for widget in widgets_of(object_info[kind])} for kind in shown}
    wires = {
        "model": "MODEL", "identity_latents": "LATENT", "identity_conditioning": "CONDITIONING", "motion_latents": "LATENT",
        "motion_conditioning": "CONDITIONING", "identity_masks": "MASK", "motion_references": "CLIP_VISION_OUTPUT",
        "preview_conditioning": "CONDITIONING", "vae": "VAE", "clip": "CLIP",
    }  # fmt: skip
    sheet = Subgraph(
        "DualReal Train and Blend",
        "Trains an identity and a motion together and puts both on the model, which then goes into any sampler.",
        object_info,
        wires,
        {name: defaults[kind][name] for kind, names in shown.items() for name in names},
        ("identity_masks", "motion_references", "preview_conditioning", "vae", "clip"),
    )
    given = {kind: {name: sheet.ports[name] for name in names} for kind, names in shown.items()}
    sheet.column()
    settings = sheet.node("DualRealTrainingSettings", **given["DualRealTrainingSettings"])
    sheet.column()
    wired = {name: sheet.ports[name] for name in wires}
    trainer = sheet.node(
        "DualRealJointTrainer", extra_height=WIDE, settings=settings["settings"], **wired, **given["DualRealJointTrainer"]
    )  # fmt: skip
    sheet.column()
    applied = sheet.node(
        "DualRealApplyStageBlender", model=sheet.ports["model"], pair=trainer["pair"], **given["DualRealApplyStageBlender"]
    )  # fmt: skip
    sheet.outputs = {"model": applied["model"], "pair": trainer["pair"], "loss_map": trainer["loss_map"]}
    return blueprint(sheet)


def _folders(sheet: Sheet) -> tuple[Captioned, Captioned]:
    photos = sheet.node("LoadImageTextDataSetFromFolder", "Photos of the identity", folder="my_identity")
    clips = sheet.node("LoadVideoTextDataSetFromFolder", "Clips of the motion", folder="my_motion")
    return (photos["images"], photos["texts"]), (clips["videos"], clips["texts"])


def _datasets(
    sheet: Sheet, vae: Output, clip: Output, photos: Captioned, clips: Captioned, identity_sizes: dict, motion_sizes: dict
) -> tuple[Node, Node]:
    models = {"vae": vae, "clip": clip, "extra_height": STRIP}
    identity = sheet.node("DualRealIdentityDataset", images=photos[0], texts=photos[1], **models, **identity_sizes)
    motion = sheet.node("DualRealMotionDataset", videos=clips[0], texts=clips[1], **models, **motion_sizes)
    return identity, motion


def _only(node: Node) -> Output:
    return Output(node, 0)
