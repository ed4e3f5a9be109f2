"""Identity Dataset and Motion Dataset: what stock loaders give, as latents, conditioning and what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from comfy_api.latest import Input, io, ui

from ..dualreal_core.dataset.captions import match_captions
from ..dualreal_core.dataset.crops import CropSettings
from ..dualreal_core.dataset.frames import clips_report, cut_photos
from ..dualreal_core.dataset.items import Item
from ..dualreal_core.dataset.report import Report
from ..dualreal_core.dataset.selection import ClipSelection
from ..dualreal_core.dataset.sizes import TrainingSize
from ..dualreal_core.errors import InputError
from .dataset_inputs import picture_names, planes, without_notes_of_macos
from .types import FILE_KEY
from .videos import clip_source, named, with_file_name

MAX_SIDE = 8192
LARGEST_PAIRED_COMPRESSION = 16
"""Models of VAEs up to this compression join 2x2 latent cells into a token; models of stronger ones take cell by cell."""


class IdentityDataset(io.ComfyNode):
    """Pictures of one subject as one-frame videos."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealIdentityDataset",
            display_name="Identity Dataset",
            category="DualReal",
            description="Turns a few images of one subject into training samples: latents, captions and subject masks.",
            search_aliases=["identity images", "subject dataset", "encode training images", "training masks"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="3 to 20 images of the subject, a batch or a list. An alpha channel marks the subject."),
                *_encoding_inputs("image", "Name the subject with its trigger word, as in 'a photo of sks dog'."),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip=(
                        "Subject masks, one per image, 1 on the subject; the background counts a tenth. Masks of Load Image are inverted: "
                        "put Invert Mask behind it."
                    ),
                ),
                *_side_inputs("image"),
                io.Int.Input(
                    "num_crops",
                    default=1,
                    min=1,
                    max=64,
                    tooltip=(
                        "Samples per image: the first centred, the others elsewhere within crop_margin. More than 1 needs a "
                        "crop_margin."
                    ),
                ),
                io.Float.Input(
                    "crop_margin",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Room for the crops: the image is cut this share larger than the training size (0.25: a quarter).",
                ),
                io.String.Input(
                    "names",
                    optional=True,
                    force_input=True,
                    tooltip="File names, one per image in the same order, for the report and for messages. Load Photos gives them.",
                ),
            ],
            outputs=_outputs(
                "image",
                io.Mask.Output("masks", is_output_list=True, tooltip="One mask per sample, all 1 where the whole image counts."),
            ),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, images, vae, clip, texts, width, height, num_crops, crop_margin, masks=None, names=None) -> io.NodeOutput:
        vae, clip = _check_models(vae[0], clip[0])
        pictures, masks = planes("images", images, 3), planes("masks", masks or [], 2)
        names = picture_names(names or [], len(pictures))
        captions = match_captions(texts, len(pictures), "image", names)
        size = TrainingSize(height[0], width[0], _size_multiple(vae))
        items, report = cut_photos(pictures, captions, masks or None, size, CropSettings(num_crops[0], crop_margin[0]), names)
        bar = comfy.utils.ProgressBar(len(items), node_id=cls.hidden.unique_id)
        latents, subjects = [], []
        for item in items:
            frames, subject = item.pixels()
            latents.append(_encode(vae, item, frames))
            subjects.append(torch.ones(frames.shape[:3]) if subject is None else subject)
            bar.update(1)
        return _result(latents, _encode_captions(clip, [item.caption for item in items], latents), subjects, report)


class MotionDataset(io.ComfyNode):
    """Clips of one motion, at one frame rate, cut into segments."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealMotionDataset",
            display_name="Motion Dataset",
            category="DualReal",
            description="Turns a few clips of one motion into training samples: video latents, captions and reference frames.",
            search_aliases=["motion clips", "video dataset", "encode training videos"],
            is_input_list=True,
            inputs=[
                io.Video.Input("videos", tooltip="3 to 20 clips of the motion, preferably by different subjects."),
                *_encoding_inputs("clip", "Describe who performs the motion and the motion itself, as in 'a man is playing guitar'."),
                *_side_inputs("clip"),
                io.Int.Input(
                    "frames",
                    default=49,
                    min=2,
                    max=1024,
                    tooltip=(
                        "Length of a sample in frames, rounded down to 4k+1 (LTX-Video: 8k+1). Shorter clips are used at the longest "
                        "length that fits."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip="Frames per second of the samples; 0 keeps the clip's own. Wan 16, HunyuanVideo and LTX-Video 24, CogVideoX 8.",
                ),
                io.Int.Input(
                    "max_segments",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Samples per clip at most: long clips give several segments, evenly spread from head to tail.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Image encoder for the reference frames, which tell the motion side what a clip looks like.",
                ),
            ],
            outputs=_outputs(
                "clip",
                io.ClipVisionOutput.Output("references", is_output_list=True, tooltip="Embedding of each sample's middle frame, or None."),
            ),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, videos, vae, clip, texts, width, height, frames, fps, max_segments, clip_vision=None) -> io.NodeOutput:
        vae, clip = _check_models(vae[0], clip[0])
        if vae.not_video:
            raise InputError("The VAE encodes still images only, so it has no latents of clips; wire the VAE of a video model.")
        videos, texts, strays = without_notes_of_macos(videos, texts)
        names = [with_file_name(f"video {index}", video) for index, video in enumerate(videos, 1)]
        captions = match_captions(texts, len(videos), "video", names)
        size = TrainingSize(height[0], width[0], _size_multiple(vae))
        chosen = ClipSelection("videos", size, frames[0], fps[0], max_segments[0], vae.temporal_compression_decode() or 1)
        chosen.skipped.update(strays)
        bar = comfy.utils.ProgressBar(len(videos) * max_segments[0], node_id=cls.hidden.unique_id)
        latents, spoken, stills = [], [], []
        for index, (video, caption) in enumerate(zip(videos, captions, strict=True)):
            for latent, still in _encode_video(vae, chosen, f"video {index + 1}", video, caption, bar):
                latents.append(latent)
                spoken.append(caption)
                stills.append(still)
            bar.update_absolute((index + 1) * max_segments[0])
        report = clips_report(chosen)
        encoder = clip_vision[0] if clip_vision else None
        references = []
        for latent, still in zip(latents, stills, strict=True):
            with named(f"clip_vision cannot encode a frame of {latent[FILE_KEY]}", "wire a CLIP or DINOv2 encoder of Load CLIP Vision"):
                references.append(encoder.encode_image(still) if encoder else None)
        return _result(latents, _encode_captions(clip, spoken, latents), references, report)


def _encoding_inputs(noun: str, advice: str) -> list[io.Input]:
    captions = f"Captions: one per {noun} in the same order, or one for all. {advice}"
    return [
        io.Vae.Input("vae", tooltip="The video VAE of the model to train."),
        io.Clip.Input("clip", tooltip="The text encoder of the model to train. It encodes the captions."),
        io.String.Input("texts", force_input=True, tooltip=captions),
    ]


def _side_inputs(noun: str) -> list[io.Input]:
    tooltip = f"{{}} to train at, in pixels. 0 follows the {noun}. Rounded down to what the VAE takes (16 or 32)."
    return [
        io.Int.Input(side, default=0, min=0, max=MAX_SIDE, step=16, tooltip=tooltip.format(side.capitalize()))
        for side in ("width", "height")
    ]


def _outputs(noun: str, own: io.Output) -> list[io.Output]:
    shape = "(1, channels, frames, height, width)"
    order = "The caption of each sample, in the order of the latents; every distinct caption is encoded once."
    fate = f"What became of every {noun}: how many are used, at what size, what was rounded or skipped, and why."
    return [
        io.Latent.Output("latents", is_output_list=True, tooltip=f"One latent per sample, {shape}, for the Joint Trainer or Train LoRA."),
        io.Conditioning.Output("conditioning", is_output_list=True, tooltip=order),
        own,
        io.String.Output("report", tooltip=fate),
    ]


def _result(latents: list[dict], conditioning: list[list], own: list, report: Report) -> io.NodeOutput:
    text = "\n".join(report.lines())
    return io.NodeOutput(latents, conditioning, own, text, ui=ui.PreviewText(text))


def _check_models(vae: comfy.sd.VAE | None, clip: comfy.sd.CLIP | None) -> tuple[comfy.sd.VAE, comfy.sd.CLIP]:
    if vae is None or clip is None:
        missing = "VAE" if vae is None else "text encoder"
        raise InputError(f"The loader gives no {missing}; add Load {'VAE' if vae is None else 'CLIP'} with the one that the model needs.")
    if vae.latent_dim != 3:
        raise InputError("The VAE belongs to an image or audio model; wire the VAE of the video model that you train.")
    return vae, clip


def _size_multiple(vae: comfy.sd.VAE) -> int:
    compression = vae.spacial_compression_encode()
    return 2 * compression if compression <= LARGEST_PAIRED_COMPRESSION else compression


def _encode_video(
    vae: comfy.sd.VAE, chosen: ClipSelection, name: str, video: Input.Video, caption: str, bar: comfy.utils.ProgressBar
) -> list[tuple[dict[str, torch.Tensor | str], torch.Tensor]]:
    """Each sample's latent and middle frame (1, H, W, 3)."""
    name = with_file_name(name, video)
    try:
        source = clip_source(name, caption, video)
    except InputError as problem:
        chosen.skipped[name] = f"unreadable: {problem}"
        return []
    encoded = []
    for item in chosen.add(source):
        frames, _ = item.pixels()
        encoded.append((_encode(vae, item, frames), frames[len(frames) // 2][None].clone()))
        bar.update(1)
    return encoded


def _encode(vae: comfy.sd.VAE, item: Item, frames: torch.Tensor) -> dict[str, torch.Tensor | str]:
    """One latent (1, C, f, h, w), with the name of the picture or clip, so that its samples can be told from others'."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    with named(f"The VAE cannot encode {item.name}", "load the right VAE, or train at a smaller size"):
        latent = vae.encode(frames)
        is_finite = bool(latent.isfinite().all())
    if not is_finite:
        raise InputError(f"The VAE turns {item.name} into NaN; start ComfyUI with --fp32-vae or load the right VAE.")
    return {"samples": latent, FILE_KEY: item.source.name}


def _encode_captions(clip: comfy.sd.CLIP, captions: Sequence[str], latents: Sequence[dict]) -> list[list]:
    """latents: of the same samples; they know the files."""
    encoded = {}
    for caption, latent in zip(captions, latents, strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if caption in encoded:
            continue
        with named(f"The text encoder cannot encode the caption of {latent[FILE_KEY]}", "load the right text encoder"):
            encoded[caption] = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    return [encoded[caption] for caption in captions]


NODES: list[type[io.ComfyNode]] = [IdentityDataset, MotionDataset]
