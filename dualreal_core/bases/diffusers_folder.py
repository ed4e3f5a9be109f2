"""A base made of a model folder in diffusers layout, text to video. Reads local files only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import diffusers
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn
from transformers import AutoTokenizer, CLIPVisionModelWithProjection, PreTrainedTokenizerBase

from ..errors import InputError
from ..families import family_of
from .base import Offload, check_size, pad_texts
from .denoising import denoise
from .devices import free_memory
from .folder_files import check_component, check_tokenizer, fingerprint, read_json
from .folder_layout import FolderLayout
from .folder_layouts import PIPELINES, layout_of
from .image_encoder import ReferenceEncoder
from .loading import explained, load_weights
from .texts import TextListener
from .weights import ComingWeights

TILED_FROM = 512 * 512
"""Pixels of a frame above which the VAE works tile by tile: below, its activations are small, and whole frames are exact."""


class DiffusersFolderBase:
    """See `bases.base.Base` for every member. The folder is one that diffusers' `save_pretrained` wrote.

    CogVideoX 1.5 joins `patch_size_t` latent frames into one token. Its clips have one latent frame too few for that, so,
    as in its own training, `encode_frames` repeats the first latent frame in front and `decode_latents` drops it; the
    latents in between include it.

    The encoders and the DiT are never in memory together: its weights are read when `transformer` is first asked for, and
    leave whenever the encoders are opened.
    """

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        image_encoder: Path | None = None,
        offload: Offload = "none",
        component: str | None = None,
    ) -> None:
        """Checks all files; reads no weights yet.

        Args:
            folder: model folder with model_index.json.
            dtype: of transformer and text encoder.
            device: where all components run.
            image_encoder: folder of a CLIP vision tower; default: `image_encoder/` in the model folder, if it is there.
            offload: where the DiT's weights wait while the encoders are at work; on the CPU always nowhere.
            component: subfolder of the DiT, to be named where there are two; see `load_base`.

        Raises:
            InputError: something is missing, broken or of an unknown kind.
        """
        self.name = str(folder)
        self.folder, self.dtype, self.device = folder, dtype, device
        pipeline = _pipeline_class(folder)
        if component is None and _names_second(folder):
            raise InputError(f"{folder} is a Wan 2.2 model of two experts: give it to load_base, or name the component of one.")
        component = component or "transformer"
        config, vae_config = read_json(folder / component / "config.json"), read_json(folder / "vae" / "config.json")
        self._layout = layout_of(pipeline, config)
        shapes = {part: check_component(folder / part) for part in (component, "vae", *self._layout.text_encoders)}
        for name in self._layout.tokenizers:
            check_tokenizer(folder / name)
        scheduler = _load_scheduler(folder / "scheduler")
        self.denoise = partial(
            denoise, scheduler, frames_first=self._layout.frames_first, step_arguments=self._layout.step_arguments
        )
        try:
            self.objective = self._layout.objective(scheduler)
            self._mean, self._std = self._layout.latent_statistics(vae_config, folder / "vae")
            self._temporal_scale, self._spatial_scale = self._layout.scales(vae_config)
            self._frame_patch, *patch = self._layout.patches(config)
            self.latent_channels = int(config[self._layout.channels])
            self.default_size = self._layout.size or (
                int(config["sample_height"]) * self._spatial_scale,
                int(config["sample_width"]) * self._spatial_scale,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder} has a config this base cannot use ({error}): take the model's original files.") from error
        self.frame_multiple = self._temporal_scale * math.lcm(self._frame_patch, self._layout.latent_frame_group)
        self.size_multiple = self._spatial_scale * max(patch)
        self.text_length = int(config.get("max_text_seq_length", self._layout.text_length))
        self.default_num_frames = int(config.get("sample_frames", self._layout.num_frames))
        self.default_fps, self.default_num_steps = self._layout.fps, self._layout.num_steps
        self.default_guidance_scale = self._layout.guidance_scale
        image_folder = image_encoder or folder / "image_encoder"
        self._image_encoder = ReferenceEncoder(image_folder) if image_encoder or image_folder.is_dir() else None
        self.condition_dim = self._image_encoder.condition_dim if self._image_encoder else None
        encoder_folders = [folder / name for name in (*self._layout.text_encoders, *self._layout.tokenizers, "vae")]
        encoder_folders += [self._image_encoder.folder] if self._image_encoder else []
        self.fingerprint = fingerprint(encoder_folders, pipeline, str(self.text_length), str(dtype))
        self._weights = ComingWeights(self._layout.transformer, folder / component, config, dtype, device, offload)
        self._weights.check(shapes[component])
        self.family, self.compute_dtype = family_of(self.architecture), dtype
        self._encoders: _Encoders | None = None

    @property
    def architecture(self) -> nn.Module:
        return self._weights.modules

    @property
    def transformer(self) -> nn.Module:
        return self._weights.at_work()

    def rest(self) -> None:
        self._weights.rest()

    @contextmanager
    def encoders(self) -> Iterator[None]:
        """Within it, each encoder is loaded when first used; the DiT's weights leave. An inner use joins the outer one."""
        if self._encoders is not None:
            yield
            return
        self._weights.rest()
        self._encoders = _Encoders(self.folder, self._layout, self._image_encoder, self.dtype, self.device)
        try:
            yield
        finally:
            self._encoders = None
            free_memory(self.device)

    @torch.no_grad()
    def encode_text(self, prompt: str) -> torch.Tensor:
        return self._layout.encode_text(self._open_encoders(), prompt, self.text_length)

    def batch_texts(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        return pad_texts(texts).to(self.device)

    def dit_text(self, text: torch.Tensor) -> torch.Tensor:
        listener = TextListener(self.architecture.config)
        self._layout.predict(listener, text.new_zeros(1, self.latent_channels, 1, 8, 8), text.new_zeros(1), text[None])
        return listener.text[0]

    @torch.no_grad()
    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """The mode of the VAE's distribution.

        Raises:
            InputError: the clip's size or number of frames does not fit the model.
        """
        self.latent_shape(frames.shape[0], frames.shape[2], frames.shape[3])
        vae = self._open_encoders().vae_for(*frames.shape[2:])
        pixels = frames.to(self.device, vae.dtype).transpose(0, 1)[None]  # (1, 3, F, H, W)
        raw = vae.encode(pixels).latent_dist.mode()[0].float()
        latents = (raw - self._mean.to(raw)) / self._std.to(raw)
        return torch.cat([latents[:, :1]] * (self._frame_patch - 1) + [latents], dim=1)

    @torch.no_grad()
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        vae = self._open_encoders().vae_for(*(side * self._spatial_scale for side in latents.shape[2:]))
        raw = latents[:, self._frame_patch - 1 :].to(self.device).float()
        raw = raw * self._std.to(raw) + self._mean.to(raw)
        cleanest = (raw.new_zeros(1, dtype=vae.dtype),) if vae.config.get("timestep_conditioning") else ()
        return vae.decode(raw[None].to(vae.dtype), *cleanest, return_dict=False)[0][0].transpose(0, 1).float().clamp(-1, 1)

    @torch.no_grad()
    def embed_image(self, frame: torch.Tensor) -> torch.Tensor:
        """Raises InputError where there is no image encoder."""
        encoders = self._open_encoders()
        if self._image_encoder is None:
            raise InputError(f"{self.folder} has no image_encoder/: name the folder of a CLIP vision model, such as OpenCLIP ViT-H/14.")
        pixels = self._image_encoder.preparation.apply(frame.to(self.device))
        return encoders.image_encoder(pixel_values=pixels).image_embeds[0]

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Raises InputError where the model has no latents of that size."""
        check_size(self, num_frames, height, width)
        num_latent_frames = (num_frames - 1) // self._temporal_scale + self._frame_patch
        return self.latent_channels, num_latent_frames, height // self._spatial_scale, width // self._spatial_scale

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        timestep = timestep.to(latents.device).expand(latents.shape[0])
        return self._layout.predict(self.transformer, latents.to(self.dtype), timestep, text.to(self.dtype))

    def _open_encoders(self) -> _Encoders:
        if self._encoders is None:
            raise RuntimeError("The encoders are not loaded: call this inside `with base.encoders():`.")
        return self._encoders


class _Encoders:
    """Text encoders, VAE and image encoder, each loaded when first asked for; text encoders, by far the largest, leave for others."""

    def __init__(self, folder: Path, layout: FolderLayout, image_encoder: ReferenceEncoder | None, dtype: torch.dtype, device: str) -> None:
        self._folder, self._layout, self._image_encoder, self._dtype, self.device = folder, layout, image_encoder, dtype, device
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._text_encoders: dict[str, nn.Module] = {}

    def tokenizer(self, name: str = "tokenizer") -> PreTrainedTokenizerBase:
        if name not in self._tokenizers:
            path = self._folder / name
            self._tokenizers[name] = explained(lambda: AutoTokenizer.from_pretrained(path, local_files_only=True), path)
        return self._tokenizers[name]

    def text_encoder(self, name: str = "text_encoder") -> nn.Module:
        if name not in self._text_encoders:
            self._text_encoders[name] = load_weights(self._layout.text_encoders[name], self._folder / name, self._dtype, self.device)
        return self._text_encoders[name]

    def vae_for(self, height: int, width: int) -> nn.Module:
        """The VAE, which splits frames of so many px into tiles where they are large."""
        is_tiled = height * width > TILED_FROM
        for part in ("tiling", "slicing"):
            switch = getattr(self._vae, f"{'enable' if is_tiled else 'disable'}_{part}", None)
            if switch is not None:
                switch()
        return self._vae

    @cached_property
    def _vae(self) -> nn.Module:
        self._drop_text_encoder()
        return load_weights(self._layout.vae, self._folder / "vae", self._layout.vae_dtype or self._dtype, self.device)

    @cached_property
    def image_encoder(self) -> CLIPVisionModelWithProjection:
        self._drop_text_encoder()
        return self._image_encoder.load(self.device)

    def _drop_text_encoder(self) -> None:
        if self._text_encoders:
            self._text_encoders.clear()
            free_memory(self.device)


def boundary_of_folder(folder: Path) -> float | None:
    """The sigma at which two experts of a folder switch; None where it holds one DiT.

    Raises:
        InputError: there are two, and it is not told.
    """
    if not (folder / "model_index.json").is_file() or not _names_second(folder):
        return None
    boundary = read_json(folder / "model_index.json").get("boundary_ratio")
    if not isinstance(boundary, float) or not 0 < boundary < 1:
        raise InputError(
            f"{folder} has two experts, and its model_index.json names no boundary_ratio between 0 and 1 ({boundary!r}): download it again."
        )
    return boundary


def _names_second(folder: Path) -> bool:
    """Whether a folder has a second DiT, by its index."""
    return (read_json(folder / "model_index.json").get("transformer_2") or [None])[0] is not None


def _pipeline_class(folder: Path) -> str:
    """The supported pipeline class a folder names, after checking that all its components are there."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: give the path of a downloaded diffusers model folder.")
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{folder} has no model_index.json: give the top folder of a model in diffusers layout.")
    index = read_json(folder / "model_index.json")
    pipeline = str(index.get("_class_name"))
    if pipeline not in PIPELINES:
        raise InputError(f"{folder} is a {pipeline}: give a model of one of {', '.join(PIPELINES)}.")
    for name in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not (folder / name).is_dir():
            raise InputError(f"{folder} has no folder {name}/: download the whole model in diffusers layout.")
    return pipeline


def _load_scheduler(folder: Path) -> SchedulerMixin:
    """The scheduler of the class its own config names."""
    config = read_json(folder / "scheduler_config.json")
    scheduler_class = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, SchedulerMixin)):
        raise InputError(f"{folder} names {config.get('_class_name')}, no scheduler of this diffusers: take the model's original one.")
    return explained(lambda: scheduler_class.from_config(config), folder)
