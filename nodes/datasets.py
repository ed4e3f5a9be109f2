"""Identity Dataset and Motion Dataset: what stock loaders give, as latents, conditioning and what belongs to them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from comfy_api.latest import Input, io

from ..dualreal_core.dataset.captions import match_captions
from ..dualreal_core.dataset.crops import CropSettings
from ..dualreal_core.dataset.frames import clips_report, cut_photos
from ..dualreal_core.dataset.items import Item
from ..dualreal_core.dataset.selection import ClipSelection
from ..dualreal_core.dataset.sizes import TrainingSize
from ..dualreal_core.errors import InputError
from .dataset_inputs import picture_names, planes, without_notes_of_macos
from .dataset_view import DatasetView
from .encoding import check_models, clip_lengths, embed, encode, encode_captions, size_multiple, tell_first_frame, tell_rate
from .first_frame import way_to_tell
from .progress import told
from .videos import clip_source, with_file_name

MAX_SIDE = 8192


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
                _image_to_video("The samples then say that no frame is given: the subject is learned, not copied from a first frame."),
            ],
            outputs=_outputs(
                "image",
                io.Mask.Output("masks", is_output_list=True, tooltip="One mask per sample, all 1 where the whole image counts."),
            ),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, images, vae, clip, texts, width, height, num_crops, crop_margin, masks=None, names=None, image_to_video=(False,)
    ) -> io.NodeOutput:
        vae, clip = check_models(vae[0], clip[0])
        tell = way_to_tell(vae) if image_to_video[0] else None
        pictures, masks = planes("images", images, 3), planes("masks", masks or [], 2)
        names = picture_names(names or [], len(pictures))
        captions = match_captions(texts, len(pictures), "image", names)
        size = TrainingSize(height[0], width[0], size_multiple(vae))
        items, report = cut_photos(pictures, captions, masks or None, size, CropSettings(num_crops[0], crop_margin[0]), names)
        view = DatasetView(cls.hidden.unique_id, len(items), "photos")
        latents, subjects, knows = [], [], []
        for item in items:
            frames, subject = item.pixels()
            latents.append(encode(vae, item, frames))
            knows.append(tell_first_frame(tell, vae, item, frames, latents[-1], 0))
            subjects.append(torch.ones(frames.shape[:3]) if subject is None else subject)
            view.add(frames)
        spoken = encode_captions(clip, [item.caption for item in items], latents, knows, view.progress.say)
        text = "\n".join(report.lines())
        return io.NodeOutput(latents, spoken, subjects, text, ui=told(text))


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
                        "Length of a sample in frames, rounded down to 4k+1 (LTX-Video: 8k+1, MiniMax-H3: 17k+5). Shorter clips are used "
                        "at the longest length that fits."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip=(
                        "Frames per second of the samples; 0 keeps the clip's own. CogVideoX 8, Wan 2.1 and 2.2 A14B 16; Wan 2.2 5B, "
                        "LTX, MiniMax-H3, HunyuanVideo and Kandinsky 5 24. LTX models are told the rate."
                    ),
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
                    tooltip=(
                        "Image encoder for the reference frames, which tell the motion side what a clip looks like; with image_to_video it "
                        "also encodes first frames, for models that read them (Wan 2.1: clip_vision_h)."
                    ),
                ),
                _image_to_video("Each sample then gives its own first frame to the model, so that the pair learns to move a given one."),
            ],
            outputs=_outputs(
                "clip",
                io.ClipVisionOutput.Output("references", is_output_list=True, tooltip="Embedding of each sample's middle frame, or None."),
            ),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, videos, vae, clip, texts, width, height, frames, fps, max_segments, clip_vision=None, image_to_video=(False,)
    ) -> io.NodeOutput:
        vae, clip = check_models(vae[0], clip[0])
        if vae.not_video:
            raise InputError("The VAE encodes still images only, so it has no latents of clips; wire the VAE of a video model.")
        videos, texts, strays = without_notes_of_macos(videos, texts)
        names = [with_file_name(f"video {index}", video) for index, video in enumerate(videos, 1)]
        captions = match_captions(texts, len(videos), "video", names)
        size = TrainingSize(height[0], width[0], size_multiple(vae))
        chosen = ClipSelection("videos", size, frames[0], fps[0], max_segments[0], *clip_lengths(vae))
        tell, encoder = way_to_tell(vae) if image_to_video[0] else None, clip_vision[0] if clip_vision else None
        chosen.skipped.update(strays)
        view = DatasetView(cls.hidden.unique_id, len(videos) * max_segments[0], "segments of clips")
        latents, spoken, references, knows = [], [], [], []
        for index, (video, caption) in enumerate(zip(videos, captions, strict=True)):
            for item, shown in _cut(chosen, f"video {index + 1}", video, caption):
                latents.append(encode(vae, item, shown))
                spoken.append(caption)
                references.append(embed(encoder, item, shown[len(shown) // 2]))
                knows.append(tell_rate(vae, item, tell_first_frame(tell, vae, item, shown, latents[-1], 1, encoder)))
                view.add(shown)
            view.progress.reach((index + 1) * max_segments[0])
        said = encode_captions(clip, spoken, latents, knows, view.progress.say)
        text = "\n".join(clips_report(chosen).lines())
        return io.NodeOutput(latents, said, references, text, ui=told(text))


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


def _image_to_video(effect: str) -> io.Input:
    return io.Boolean.Input(
        "image_to_video", optional=True, default=False,
        tooltip=f"For image-to-video training, on in both dataset nodes. {effect} Text-to-video models ignore it, except Kandinsky 5.",
    )  # fmt: skip


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


def _cut(chosen: ClipSelection, name: str, video: Input.Video, caption: str) -> Iterator[tuple[Item, torch.Tensor]]:
    """Samples of a clip, each with its frames (F, H, W, 3)."""
    name = with_file_name(name, video)
    try:
        source = clip_source(name, caption, video)
    except InputError as problem:
        chosen.skipped[name] = f"unreadable: {problem}"
        return
    for item in chosen.add(source):
        yield item, item.pixels()[0]


NODES: list[type[io.ComfyNode]] = [IdentityDataset, MotionDataset]
