"""Identity Dataset and Motion Dataset: what stock loaders give, as latents, conditioning and what belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import Input, InputImpl, io, ui

from ..dualreal_core.dataset.crops import CropSettings
from ..dualreal_core.dataset.frames import CLIP_CURE, ClipCutter, FrameSample, cut_photos, match_captions
from ..dualreal_core.dataset.report import Report
from ..dualreal_core.dataset.sizes import TrainingSize
from ..dualreal_core.errors import InputError
from .types import FILE_KEY

MAX_SIDE = 8192
LARGEST_PAIRED_COMPRESSION = 16
"""Models of VAEs up to this compression join 2x2 latent cells into a token; models of stronger ones take cell by cell."""
LOST_FRAMES = 0.05
LATENTS_TOOLTIP = "One latent per sample, (1, channels, {frames}, height, width), for the Joint Trainer or Train LoRA."
CONDITIONING_TOOLTIP = "The caption of each sample, in the order of the latents; every distinct caption is encoded once."
REPORT_TOOLTIP = "What became of every {noun}: how many are used, at what size, what was rounded or skipped, and why."
SIDE_TOOLTIP = (
    "{side} to train at, in pixels, 0 to 8192; 0 follows the {noun} (or, at its aspect, the other side). Each {noun} is scaled "
    "to cover it and cropped at the centre. Rounded down to what the VAE takes: 16 for Wan 2.1, HunyuanVideo and "
    "CogVideoX, 32 for LTX-Video and Wan 2.2."
)


class IdentityDataset(io.ComfyNode):
    """Pictures of one subject as one-frame videos, and as clips that pan over them."""

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
                io.Image.Input(
                    "images",
                    tooltip=(
                        "3 to 20 images of the subject, as a batch, a list, or a list of batches. Where an image has an alpha channel "
                        "(4 channels, as Join Image with Alpha gives), alpha is the subject and neutral grey shows behind it."
                    ),
                ),
                io.Vae.Input("vae", tooltip="The video VAE of the model to train. Each image is encoded as a video of one frame."),
                io.Clip.Input("clip", tooltip="The text encoder of the model to train. It encodes the captions."),
                io.String.Input(
                    "texts",
                    force_input=True,
                    tooltip=(
                        "Captions: one per image in the same order, or one for all. Name the subject with its trigger word, "
                        "as in 'a photo of sks dog', so that the prompt can call it later."
                    ),
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip=(
                        "Subject masks, one per image in the same order: 1 on the subject, 0 elsewhere, so that the background teaches "
                        "nothing. Load Image gives the opposite (1 where transparent): put Invert Mask behind it. The image itself is "
                        "not changed."
                    ),
                ),
                _side_input("width", "image"),
                _side_input("height", "image"),
                io.Int.Input(
                    "views",
                    default=1,
                    min=1,
                    max=64,
                    tooltip=(
                        "Samples per image, 1 to 64: the first is centred, the others lie elsewhere within view_margin, so that the "
                        "subject is seen off-centre too. More than 1 needs a view_margin."
                    ),
                ),
                io.Float.Input(
                    "crop_margin",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip=(
                        "Room for views, 0 to 1: images are cut this share larger than the training size (0.25: a quarter), and views "
                        "are cut from that at whole pixels. With width and height 0 the views shrink instead, so nothing is enlarged."
                    ),
                ),
                io.Int.Input(
                    "clip_frames",
                    default=1,
                    min=1,
                    max=1024,
                    optional=True,
                    tooltip=(
                        "1 to 1024; above 1 every view also becomes a clip of this many frames that pans over the image, so that the "
                        "subject does not stiffen a motion it is joined with. Use the Motion Dataset's frames. Needs a view_margin, "
                        "and takes memory and time as motion clips do. 1: stills alone."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output("latents", is_output_list=True, tooltip=LATENTS_TOOLTIP.format(frames="frames")),
                io.Conditioning.Output("conditioning", is_output_list=True, tooltip=CONDITIONING_TOOLTIP),
                io.Mask.Output(
                    "masks",
                    is_output_list=True,
                    tooltip="One mask per sample, at its size and length: 1 on the subject, all 1 where the whole image counts.",
                ),
                io.String.Output("report", tooltip=REPORT_TOOLTIP.format(noun="image")),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        vae: list[comfy.sd.VAE],
        clip: list[comfy.sd.CLIP],
        texts: list[str],
        width: list[int],
        height: list[int],
        views: list[int],
        crop_margin: list[float],
        masks: list[torch.Tensor | None] | None = None,
        clip_frames: list[int] | None = None,
    ) -> io.NodeOutput:
        vae, clip = _check_models(vae[0], clip[0])
        if views[0] > 1 and not crop_margin[0]:
            raise InputError(f"views is {views[0]} with view_margin 0, which repeats one view; raise view_margin or set views to 1.")
        num_frames = clip_frames[0] if clip_frames else 1
        if num_frames > 1:
            _check_video(vae)
            if not crop_margin[0]:
                raise InputError(f"clip_frames is {num_frames} with view_margin 0, which leaves no room to pan; raise view_margin.")
        pictures = [picture.cpu() for batch in images for picture in _batched(batch, 4)]
        masks = [mask.cpu() for batch in masks or [] if batch is not None for mask in _batched(batch, 3)]
        samples, report = cut_photos(
            pictures,
            match_captions(texts, len(pictures), "image"),
            masks or None,
            TrainingSize(height[0], width[0], _size_multiple(vae)),
            CropSettings(views[0], crop_margin[0], num_frames),
            vae.temporal_compression_decode() or 1,
        )
        bar = comfy.utils.ProgressBar(len(samples), node_id=cls.hidden.unique_id)
        latents = []
        for sample in samples:
            latents.append(_encode(vae, sample))
            bar.update(1)
        outlines = [torch.ones(sample.frames.shape[:3]) if sample.mask is None else sample.mask for sample in samples]
        conditioning = _encode_captions(clip, [sample.caption for sample in samples])
        return io.NodeOutput(latents, conditioning, outlines, _text(report), ui=ui.PreviewText(_text(report)))


class MotionDataset(io.ComfyNode):
    """Clips of one motion, at one frame rate, cut into windows."""

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
                io.Video.Input(
                    "videos",
                    tooltip="3 to 20 clips of the motion, preferably by different subjects: one VIDEO, or a list as Load Video-Text gives.",
                ),
                io.Vae.Input("vae", tooltip="The video VAE of the model to train. It encodes the windows of the clips."),
                io.Clip.Input("clip", tooltip="The text encoder of the model to train. It encodes the captions."),
                io.String.Input(
                    "texts",
                    force_input=True,
                    tooltip=(
                        "Captions: one per clip in the same order, or one for all. Describe who performs the motion and the motion "
                        "itself, as in 'a man is playing guitar'."
                    ),
                ),
                _side_input("width", "clip"),
                _side_input("height", "clip"),
                io.Int.Input(
                    "frames",
                    default=49,
                    min=2,
                    max=1024,
                    tooltip=(
                        "Length of a sample in frames, 2 to 1024. Rounded down to 4k+1 (8k+1 for LTX-Video) where the VAE joins frames. "
                        "Shorter clips are used at the longest length that fits."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip=(
                        "Frames per second of the samples, 0 to 240; 0 keeps each clip's own. Clips are resampled by time, so they neither "
                        "speed up nor slow down. Use the rate that the model makes videos at: 16 for Wan, 24 for HunyuanVideo and "
                        "LTX-Video, 8 for CogVideoX."
                    ),
                ),
                io.Int.Input(
                    "max_segments",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Samples per clip at most, 1 to 64: long clips give several windows, evenly spread from head to tail.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip=(
                        "Image encoder for the reference frames. With it the motion side is told what a clip looks like, so that it learns "
                        "how things move and not how they look."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output("latents", is_output_list=True, tooltip=LATENTS_TOOLTIP.format(frames="frames")),
                io.Conditioning.Output("conditioning", is_output_list=True, tooltip=CONDITIONING_TOOLTIP),
                io.ClipVisionOutput.Output(
                    "references",
                    is_output_list=True,
                    tooltip="The embedding of each sample's middle frame; nothing (None) for every sample where no clip_vision is wired.",
                ),
                io.String.Output("report", tooltip=REPORT_TOOLTIP.format(noun="clip")),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        videos: list[Input.Video],
        vae: list[comfy.sd.VAE],
        clip: list[comfy.sd.CLIP],
        texts: list[str],
        width: list[int],
        height: list[int],
        frames: list[int],
        fps: list[float],
        max_segments: list[int],
        clip_vision: list[ClipVisionModel] | None = None,
    ) -> io.NodeOutput:
        vae, clip = _check_models(vae[0], clip[0])
        _check_video(vae)
        captions = match_captions(texts, len(videos), "video")
        size = TrainingSize(height[0], width[0], _size_multiple(vae))
        cutter = ClipCutter("motion", "videos", size, frames[0], fps[0], max_segments[0], vae.temporal_compression_decode() or 1)
        bar = comfy.utils.ProgressBar(len(videos) * max_segments[0], node_id=cls.hidden.unique_id)
        latents, spoken, stills = [], [], []
        for index, (video, caption) in enumerate(zip(videos, captions, strict=True)):
            for window, sample in enumerate(_cut_video(cutter, index, video, caption)):
                latents.append(_encode(vae, sample))
                spoken.append(caption)
                stills.append(sample.frames[len(sample.frames) // 2][None].clone())
                bar.update_absolute(index * max_segments[0] + window + 1)
            bar.update_absolute((index + 1) * max_segments[0])
        report = _text(cutter.report("Motion Dataset", CLIP_CURE))
        encoder = clip_vision[0] if clip_vision else None
        references = [encoder.encode_image(still) if encoder else None for still in stills]
        return io.NodeOutput(latents, _encode_captions(clip, spoken), references, report, ui=ui.PreviewText(report))


def _side_input(side: str, noun: str) -> io.Int.Input:
    tooltip = SIDE_TOOLTIP.format(side=side.capitalize(), noun=noun)
    return io.Int.Input(side, default=0, min=0, max=MAX_SIDE, step=16, tooltip=tooltip)


def _check_models(vae: comfy.sd.VAE | None, clip: comfy.sd.CLIP | None) -> tuple[comfy.sd.VAE, comfy.sd.CLIP]:
    if vae is None or clip is None:
        missing = "VAE" if vae is None else "text encoder"
        raise InputError(f"The loader gives no {missing}; add Load {'VAE' if vae is None else 'CLIP'} with the one that the model needs.")
    if vae.latent_dim != 3:
        raise InputError("The VAE belongs to an image or audio model; wire the VAE of the video model that you train.")
    return vae, clip


def _check_video(vae: comfy.sd.VAE) -> None:
    if vae.not_video:
        raise InputError("The VAE encodes still images only, so it has no latents of clips; wire the VAE of a video model.")


def _size_multiple(vae: comfy.sd.VAE) -> int:
    compression = vae.spacial_compression_encode()
    return 2 * compression if compression <= LARGEST_PAIRED_COMPRESSION else compression


def _batched(pixels: torch.Tensor, num_dims: int) -> torch.Tensor:
    return pixels[None] if pixels.ndim == num_dims - 1 else pixels


def _cut_video(cutter: ClipCutter, index: int, video: Input.Video, caption: str) -> list[FrameSample]:
    """The clip's samples; its full-size frames are gone when this returns."""
    name = f"video {index + 1}"
    is_file = isinstance(video, InputImpl.VideoFromFile)
    if is_file and isinstance(source := video.get_stream_source(), str):
        name += f" ({Path(source).name})"
    try:
        declared = declared_frames(video) if is_file else 0
        components = video.get_components()
    except (OSError, ValueError, EOFError) as problem:  # the decoder's errors derive from these
        cutter.skip(name, f"unreadable: {getattr(problem, 'strerror', None) or problem}")
        return []
    images, rate = components.images, Fraction(components.frame_rate)
    if not len(images) or rate <= 0:
        cutter.skip(name, "unreadable: no frame of it could be decoded")
        return []
    if len(images) < declared * (1 - LOST_FRAMES) - 2:
        cutter.skip(name, f"damaged: only {len(images)} of {declared} frames could be decoded")
        return []
    return cutter.cut(name, images.cpu(), float(rate), caption)


def declared_frames(video: InputImpl.VideoFromFile) -> int:
    """Number of frames by the file's header.

    Raises:
        ValueError: decoding them would need more memory than is free.
    """
    width, height = video.get_dimensions()
    count = video.get_frame_count()
    length = max(count, int(video.get_duration() * video.get_frame_rate()))
    needed = 2 * length * height * width * 3 * torch.float32.itemsize  # ComfyUI's list of frames, and the stack of them
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(f"decoding it needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} are free; shorten it or make it smaller")
    return count


def _encode(vae: comfy.sd.VAE, sample: FrameSample) -> dict[str, torch.Tensor | str]:
    """One latent (1, C, f, h, w), with the name of the picture or clip, so that its samples can be told from others'."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    latent = vae.encode(sample.frames)
    if not latent.isfinite().all():
        raise InputError(f"The VAE turns {sample.source} into NaN; start ComfyUI with --fp32-vae or load the right VAE.")
    return {"samples": latent, FILE_KEY: sample.file}


def _encode_captions(clip: comfy.sd.CLIP, captions: Sequence[str]) -> list[list]:
    encoded = {}
    for caption in dict.fromkeys(captions):
        comfy.model_management.throw_exception_if_processing_interrupted()
        encoded[caption] = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    return [encoded[caption] for caption in captions]


def _text(report: Report) -> str:
    return "\n".join(report.lines())


NODES: list[type[io.ComfyNode]] = [IdentityDataset, MotionDataset]
