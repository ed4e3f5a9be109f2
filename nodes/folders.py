"""Load Photos and Load Clips: folders below ComfyUI's input, with captions, masks and names, and without a stop at a broken file."""

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import InputImpl, io

from ..dualreal_core.dataset.folder import Listing, list_folder
from ..dualreal_core.dataset.loading import Loader, folder_state
from ..dualreal_core.dataset.photos import PHOTO_SUFFIXES
from ..dualreal_core.errors import InputError
from ..dualreal_core.files.regular import printable
from ..dualreal_core.plots.thumbnails import rows_of, thumbnail, thumbnail_sheet
from ..dualreal_core.video import VIDEO_SUFFIXES
from .progress import Progress, told

MAX_SIDE = 16384
PHOTO_CURE = "add PNG, JPEG or WebP photos"
CLIP_CURE = "add MP4, MOV, AVI, WebM, MKV or GIF clips"
MAX_SHOWN = 20
CHANNELS = 4
"""Three of the picture, one of its mask."""


class _FolderNode(io.ComfyNode):
    """The choice of a folder, as stock folder loaders have it, and when it counts as changed."""

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        if folder is None:  # wired: its value is not known yet
            return True
        try:
            _input_folder(folder)
        except InputError as problem:
            return str(problem)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str, **others: object) -> str:
        try:
            return folder_state(_input_folder(folder))
        except InputError:
            return ""


class LoadPhotos(_FolderNode):
    """Photos as their owners see them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealLoadPhotos",
            display_name="Load Photos",
            category="DualReal",
            description=(
                "Loads all photos of a folder with their captions: turned upright, in sRGB, transparency as a mask, in the order of "
                "their names. What cannot be read is left out and named."
            ),
            search_aliases=["load image folder", "image dataset", "batch load images", "captions", "load images from folder"],
            inputs=[
                *_folder_inputs("photos"),
                io.Int.Input(
                    "max_side",
                    default=4096,
                    min=0,
                    max=MAX_SIDE,
                    step=64,
                    tooltip="Longest side in pixels; larger photos are scaled down to it. 0 loads every photo at its own size.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="The photos, each at its own size, grey where clear."),
                io.String.Output(display_name="texts", is_output_list=True, tooltip="Their captions, in the same order."),
                io.Mask.Output(
                    display_name="masks",
                    is_output_list=True,
                    tooltip="Their alpha channels: 1 on the subject, as Identity Dataset takes them; all 1 without transparency.",
                ),
                io.String.Output(display_name="names", is_output_list=True, tooltip="Their file names, in the same order."),
                io.String.Output(display_name="report", tooltip="What became of every file: loaded, converted, skipped and why."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, folder: str, caption: str, max_side: int) -> io.NodeOutput:
        loader = Loader(_listing(folder, caption, "identity", "image", PHOTO_SUFFIXES, PHOTO_CURE), "photo")
        progress = Progress(cls.hidden.unique_id, len(loader.listing.files), "Loading photos")
        photos, shown = [], []
        for photo in loader.photos(max_side):
            photos.append(photo)
            if len(shown) < MAX_SHOWN:
                shown.append(thumbnail(photo.picture.movedim(-1, 0) * 2 - 1))
            progress.advance(picture=thumbnail_sheet(rows_of(shown)))
            if photo.mask.nbytes * CHANNELS > comfy.model_management.get_free_memory(torch.device("cpu")):
                place = f"{len(photos)} of {len(loader.listing.files)}"
                raise InputError(f"{photo.name} is number {place}, and the memory is full; lower max_side.")
        text = "\n".join(loader.report(folder, PHOTO_CURE))
        columns = [photo.picture[None] for photo in photos], [photo.caption for photo in photos], [photo.mask[None] for photo in photos]
        return io.NodeOutput(*columns, loader.loaded, text, ui=told(text))


class LoadClips(_FolderNode):
    """Clips that are decoded by whoever takes them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DualRealLoadClips",
            display_name="Load Clips",
            category="DualReal",
            description=(
                "Loads all clips of a folder with their captions, in the order of their names. What cannot be opened is left out and "
                "named. Frames are decoded only when a node asks for them."
            ),
            search_aliases=["load video folder", "video dataset", "batch load videos", "captions", "load videos from folder"],
            inputs=_folder_inputs("clips"),
            outputs=[
                io.Video.Output(display_name="videos", is_output_list=True, tooltip="The clips, not decoded yet."),
                io.String.Output(display_name="texts", is_output_list=True, tooltip="Their captions, in the same order."),
                io.String.Output(display_name="names", is_output_list=True, tooltip="Their file names, in the same order."),
                io.String.Output(display_name="report", tooltip="What became of every file: loaded, or skipped and why."),
            ],
        )

    @classmethod
    def execute(cls, folder: str, caption: str) -> io.NodeOutput:
        loader = Loader(_listing(folder, caption, "motion", "video", VIDEO_SUFFIXES, CLIP_CURE), "clip")
        videos, texts = [], []
        for path, name, text in loader.files():
            comfy.model_management.throw_exception_if_processing_interrupted()
            video = InputImpl.VideoFromFile(str(path))
            try:
                video.get_dimensions()
            except Exception as problem:  # a decoder raises anything, and one broken clip must not cost the others
                loader.skip(name, problem)
                continue
            loader.keep(name, text)
            videos.append(video)
            texts.append(text)
        report = "\n".join(loader.report(folder, CLIP_CURE))
        return io.NodeOutput(videos, texts, loader.loaded, report, ui=told(report))


def _folder_inputs(noun: str) -> list[io.Input]:
    return [
        io.Combo.Input(
            "folder",
            options=folder_paths.get_input_subfolders(),
            tooltip=f"Folder below ComfyUI's input folder with the {noun} and, of the same names, their .txt captions.",
        ),
        io.String.Input("caption", default="", tooltip=f"Caption of {noun} that have none of their own."),
    ]


def _listing(folder: str, caption: str, role: str, noun: str, suffixes: tuple[str, ...], cure: str) -> Listing:
    return list_folder(_input_folder(folder), caption, role, noun, suffixes, cure, within=Path(folder_paths.get_input_directory()))


def _input_folder(name: str) -> Path:
    """Of a folder below ComfyUI's input folder.

    Raises:
        InputError: none is chosen, it is not there, or it lies elsewhere.
    """
    root, shown = folder_paths.get_input_directory(), printable(name)
    folder = Path(root, name)
    if not name or not folder_paths.is_within_directory(root, str(folder)):
        raise InputError(f"'{shown}' is no folder below ComfyUI's input folder; make one there and choose it.")
    if not folder.is_dir():
        raise InputError(f"ComfyUI's input folder has no folder '{shown}'; choose another, or make it and press R to see it in the list.")
    return folder


NODES: list[type[io.ComfyNode]] = [LoadPhotos, LoadClips]
