"""CLIP and DINO from local transformers folders, as the metrics ask them: embeddings, patch tokens, and CLIP's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PretrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from ..bases.folder_files import check_component, fingerprint, read_json
from ..bases.image_encoder import ImagePreparation
from ..errors import InputError
from .motion import patch_grid

BATCH = 16
"""Frames that an encoder sees at once."""
LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError)
UNUSED_WEIGHTS = ("mask_token",)
"""Weights that a folder may lack, because they act in training only."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Architecture:
    """One kind of model folder.

    Attributes:
        tower: the part of the model that sees pictures.
        embed: (model, pixel values (F, 3, h, w)) -> (F, D).
        options: further arguments of the model's constructor.
        is_fixed_size: only pictures of the configured size fit.
        has_text: the folder holds a text tower and a tokenizer.
    """

    config: type[PretrainedConfig]
    model: type[PreTrainedModel]
    tower: Callable[[PreTrainedModel], nn.Module]
    embed: Callable[[PreTrainedModel, torch.Tensor], torch.Tensor]
    options: Mapping[str, object] = field(default_factory=dict)
    is_fixed_size: bool = True
    has_text: bool = False


def _vision_model(model: PreTrainedModel) -> nn.Module:
    return model.vision_model


def _whole_model(model: PreTrainedModel) -> nn.Module:
    return model


def _projected(model: PreTrainedModel, pixels: torch.Tensor) -> torch.Tensor:
    return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


def _class_token(model: PreTrainedModel, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).last_hidden_state[:, 0]


CLIP_ARCHITECTURES = {
    "clip": Architecture(CLIPConfig, CLIPModel, _vision_model, _projected, has_text=True),
    "clip_vision_model": Architecture(CLIPVisionConfig, CLIPVisionModelWithProjection, _vision_model, _projected),
}
DINO_ARCHITECTURES = {
    "dinov2": Architecture(Dinov2Config, Dinov2Model, _whole_model, _class_token, is_fixed_size=False),
    "dinov2_with_registers": Architecture(
        Dinov2WithRegistersConfig, Dinov2WithRegistersModel, _whole_model, _class_token, is_fixed_size=False
    ),
    "vit": Architecture(ViTConfig, ViTModel, _whole_model, _class_token, {"add_pooling_layer": False}),
}
"""By the model_type in config.json; 'vit' is the first DINO (facebook/dino-vits16 and its like)."""


class ImageEncoder:
    """A vision transformer in float32 with the preparation its folder asks for.

    Attributes:
        folder: where it is; digest: fingerprint of its files; model_type: of config.json; preparation: resize, crop, normalisation.
    """

    def __init__(self, folder: Path, architectures: Mapping[str, Architecture], kind: str, device: str) -> None:
        """Loads the model, never from the network.

        Args:
            kind: what the sentence of an error calls the model.

        Raises:
            InputError: the folder lacks a file, is damaged, or holds another kind of model.
        """
        check_component(folder)
        self.folder = folder
        self.model_type = str(read_json(folder / "config.json").get("model_type"))
        if self.model_type not in architectures:
            raise InputError(
                f"{folder} holds a model of type {self.model_type!r}, not {kind}: give a folder of type {' or '.join(architectures)}."
            )
        self.architecture = architectures[self.model_type]
        self.preparation = ImagePreparation.from_folder(folder)
        self.digest = fingerprint([folder])
        config = _explained(lambda: self.architecture.config.from_pretrained(folder, local_files_only=True), folder)
        options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True, **self.architecture.options}
        self._model, report = _explained(
            lambda: self.architecture.model.from_pretrained(folder, config=config, output_loading_info=True, **options), folder
        )
        missing = sorted(name for name in report["missing_keys"] if not name.endswith(UNUSED_WEIGHTS))
        if missing:
            raise InputError(f"{folder} lacks {len(missing)} weights, such as {missing[0]}: download the whole model again.")
        side = self.architecture.tower(self._model).config.image_size
        if self.architecture.is_fixed_size and self.preparation.crop != (side, side):
            raise InputError(
                f"{folder} crops pictures to {self.preparation.crop[1]}x{self.preparation.crop[0]} px but its model takes "
                f"{side}x{side}: download its preprocessor_config.json again."
            )
        self._model.eval().requires_grad_(False).to(device)
        self._device = device

    def describe(self) -> dict[str, object]:
        """Plain values that say which model it was and what it saw."""
        return {
            "folder": self.folder.resolve().name,
            "type": self.model_type,
            "digest": self.digest,
            "preparation": asdict(self.preparation),
            "patch_preparation": asdict(self._squeezed()),
        }

    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Embeddings of pictures prepared as the folder asks: shorter side resized, centre cropped, normalised.

        Args:
            frames: (F, 3, H, W) uint8

        Returns:
            (F, D) float32 on the CPU
        """
        with torch.no_grad():
            return torch.cat([self.architecture.embed(self._model, pixels).cpu() for pixels in self._batches(frames, self.preparation)])

    def tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """Patch tokens before the last block, of whole pictures squeezed to the crop's size: movement at the sides counts.

        Args:
            frames: (F, 3, H, W) uint8

        Returns:
            (F, h, w, D) float32 on the CPU

        Raises:
            InputError: the patches form no square.
        """
        tower = self.architecture.tower(self._model)
        with torch.no_grad():
            hidden = [
                tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2].cpu()
                for pixels in self._batches(frames, self._squeezed())
            ]
        try:
            return patch_grid(torch.cat(hidden))
        except ValueError as problem:
            raise InputError(f"{self.folder} gives no square grid of patches: use an encoder of square pictures.") from problem

    def _squeezed(self) -> ImagePreparation:
        return replace(self.preparation, size=self.preparation.crop)

    def _batches(self, frames: torch.Tensor, preparation: ImagePreparation) -> list[torch.Tensor]:
        pixels = [preparation.apply(frame.to(self._device) / 127.5 - 1) for frame in frames]
        return list(torch.cat(pixels).split(BATCH))


class ClipEncoder(ImageEncoder):
    """CLIP (Radford et al., ICML 2021): pictures and, where the folder has the text tower, prompts in one space."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        super().__init__(folder, CLIP_ARCHITECTURES, "CLIP", device)
        if self.has_text:
            if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # transformers would make an empty one up
                raise InputError(f"{folder} has no tokenizer ({' or '.join(TOKENIZER_FILES)}): download the whole model folder again.")
            self._tokenizer = _explained(lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True), folder)

    @property
    def has_text(self) -> bool:
        return self.architecture.has_text

    @property
    def max_text_tokens(self) -> int:
        return self._model.config.text_config.max_position_embeddings

    def is_cut(self, prompt: str) -> bool:
        """Whether the end of a prompt is beyond `max_text_tokens` and not seen."""
        return len(self._tokenizer(prompt, verbose=False).input_ids) > self.max_text_tokens

    @torch.no_grad()
    def embed_text(self, prompt: str) -> torch.Tensor:
        """(D,) float32 on the CPU, of the prompt cut to `max_text_tokens`."""
        tokens = self._tokenizer(prompt, truncation=True, max_length=self.max_text_tokens, return_tensors="pt").to(self._device)
        pooled = self._model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return self._model.text_projection(pooled)[0].cpu()


class DinoEncoder(ImageEncoder):
    """DINOv2 (Oquab et al., TMLR 2024) or DINO (Caron et al., ICCV 2021); the embedding is the class token after the last norm."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        super().__init__(folder, DINO_ARCHITECTURES, "DINO", device)


def _explained(load: Callable[[], Loaded], folder: Path) -> Loaded:
    """Result of `load`, whose failures become one sentence that names the folder."""
    try:
        return load()
    except LOADING_ERRORS as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise InputError(f"{folder} does not load ({reason}): download the whole model folder again.") from problem
