"""Nodes that several templates share, and what a file needs so that the page can offer it."""

from __future__ import annotations

from canvas_format import Node, Output, Sheet

STRIP, TALL, SQUARE, WIDE = 340, 300, 420, 760
"""Height of a picture or a text below a node's widgets."""
AUTO = {"format": "auto", "format__codec": "auto"}


def download(source: str, directory: str, name: str) -> dict[str, object]:
    """Properties of a loader: the page offers a file that is missing."""
    return {"models": [{"name": name, "url": f"{source}/{name}", "directory": directory}]}


def save_video(sheet: Sheet, images: Output, fps: float, prefix: str, audio: Output | None = None) -> None:
    video = sheet.node("CreateVideo", images=images, fps=fps, **({} if audio is None else {"audio": audio}))
    sheet.node("SaveVideo", extra_height=SQUARE, video=video["VIDEO"], filename_prefix=prefix, **AUTO)


def settings_node(sheet: Sheet, settings: dict, options: dict | None = None) -> Output:
    wired = {} if options is None else {"options": sheet.node("DualRealTrainingOptions", **options)["options"]}
    return sheet.node("DualRealTrainingSettings", **settings, **wired)["settings"]


def trainer_node(
    sheet: Sheet, model: Output, clip: Output, identity: Node, motion: Node, settings: Output, name: str, prompt: Output | None = None,
    vae: Output | None = None, extra_height: int = 0,
) -> Node:  # fmt: skip
    preview = {} if prompt is None else {"preview_conditioning": prompt, "vae": vae}
    return sheet.node(
        "DualRealJointTrainer", extra_height=extra_height, model=model, settings=settings, name=name,
        identity_latents=identity["latents"], identity_conditioning=identity["conditioning"], identity_masks=identity["masks"],
        motion_latents=motion["latents"], motion_conditioning=motion["conditioning"], clip=clip, **preview,
    )  # fmt: skip


def loss_graph(sheet: Sheet, trainer: Node) -> None:
    sheet.node("LossGraphNode", extra_height=TALL, loss=trainer["loss_map"], filename_prefix="dualreal/loss")


def blend_two(sheet: Sheet, model: Output, identity: str, motion: str, **wires: Output) -> Node:
    """A group with Blend Two LoRAs."""
    sheet.group("Blend", width=380)
    return sheet.node("DualRealBlendTwoLoras", extra_height=SQUARE, model=model, identity_lora=identity, motion_lora=motion, **wires)
