"""CLIP and DINO from local transformers folders, as the metrics ask them: embeddings, patch tokens, and CLIP's text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import torch
from transformers import (
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModelWithProjection,
    Dinov2Model,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    ViTModel,
)

from ..bases.folder_files import check_component, fingerprint, read_json
from ..bases.image_encoder import ImagePreparation
from ..bases.loading import explained, load_weights
from ..errors import InputError
from .motion import patch_grid

BATCH = 16
"""Frames that an encoder sees at once."""
TRAINING_WEIGHTS = ("mask_token",)
"""Weights that a folder may lack, because they act in training only."""
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


class ImageEncoder(ABC):
    """A vision transformer in float32 with the preparation its folder asks for.

    Attributes:
        folder: where it is; digest: fingerprint of its files; model_type: of config.json; preparation: resize, crop, normalisation.
        kind, models, tower: what the sentence of an error calls the model, its classes by model_type, and its part that sees pictures.
    """

    kind: ClassVar[str]
    models: ClassVar[Mapping[str, type[PreTrainedModel]]]
    tower: ClassVar[str] = ""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Loads the model, never from the network.

        Raises:
            InputError: the folder lacks a file, is damaged, or holds another kind of model.
        """
        check_component(folder)
        self.folder, self._device = folder, device
        self.model_type = str(read_json(folder / "config.json").get("model_type"))
        if self.model_type not in self.models:
            raise InputError(
                f"{folder} holds a model of type {self.model_type!r}, not {self.kind}: give a folder of type {' or '.join(self.models)}."
            )
        self.preparation = ImagePreparation.from_folder(folder)
        self.digest = fingerprint([folder])
        options = {"add_pooling_layer": False} if self.model_type == "vit" else {}
        self._model = load_weights(self.models[self.model_type], folder, torch.float32, device, options, TRAINING_WEIGHTS)
        self._tower = self._model.get_submodule(self.tower)
        side = self._tower.config.image_size
        takes_any_size = self.model_type.startswith("dinov2")
        if not takes_any_size and self.preparation.crop != (side, side):
            raise InputError(
                f"{folder} crops pictures to {self.preparation.crop[1]}x{self.preparation.crop[0]} px but its model takes "
                f"{side}x{side}: download its preprocessor_config.json again."
            )

    def describe(self) -> dict[str, object]:
        """Plain values that say which model it was and what it saw."""
        return {
            "folder": self.folder.resolve().name,
            "type": self.model_type,
            "digest": self.digest,
            "preparation": asdict(self.preparation),
            "patch_preparation": asdict(self._squeezed()),
        }

    @torch.no_grad()
    def embed(self, frames: torch.Tensor) -> torch.Tensor:
        """Embeddings of pictures prepared as the folder asks: shorter side resized, centre cropped, normalised.

        Args:
            frames: (F, 3, H, W) uint8

        Returns:
            (F, D) float32 on the CPU
        """
        return torch.cat([self._embed(pixels).cpu() for pixels in self._batches(frames, self.preparation)])

    @torch.no_grad()
    def tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """Patch tokens before the last block, of whole pictures squeezed to the crop's size: movement at the sides counts.

        Args:
            frames: (F, 3, H, W) uint8

        Returns:
            (F, h, w, D) float32 on the CPU

        Raises:
            InputError: the patches form no square.
        """
        batches = self._batches(frames, self._squeezed())
        hidden = [self._tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2].cpu() for pixels in batches]
        try:
            return patch_grid(torch.cat(hidden))
        except ValueError as problem:
            raise InputError(f"{self.folder} gives no square grid of patches: use an encoder of square pictures.") from problem

    @abstractmethod
    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """(F, 3, h, w) prepared -> (F, D)"""

    def _squeezed(self) -> ImagePreparation:
        return replace(self.preparation, size=self.preparation.crop)

    def _batches(self, frames: torch.Tensor, preparation: ImagePreparation) -> list[torch.Tensor]:
        pixels = [preparation.apply(frame.to(self._device) / 127.5 - 1) for frame in frames]
        return list(torch.cat(pixels).split(BATCH))


class ClipEncoder(ImageEncoder):
    """CLIP (Radford et al., ICML 2021): pictures and, where the folder has the text tower, prompts in one space."""

    kind = "CLIP"
    models: ClassVar = {"clip": CLIPModel, "clip_vision_model": CLIPVisionModelWithProjection}
    tower = "vision_model"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        super().__init__(folder, device)
        self.has_text = self.model_type == "clip"
        if self.has_text:
            if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # transformers would make an empty one up
                raise InputError(f"{folder} has no tokenizer ({' or '.join(TOKENIZER_FILES)}): download the whole model folder again.")
            self._tokenizer = explained(lambda: AutoTokenizer.from_pretrained(folder, local_files_only=True), folder)
            self._max_text_tokens = self._model.config.text_config.max_position_embeddings

    def is_cut(self, prompt: str) -> bool:
        """Whether the end of a prompt is beyond the model's length and not seen."""
        return len(self._tokenizer(prompt, verbose=False).input_ids) > self._max_text_tokens

    @torch.no_grad()
    def embed_text(self, prompt: str) -> torch.Tensor:
        """(D,) float32 on the CPU, of the prompt cut to the model's length."""
        tokens = self._tokenizer(prompt, truncation=True, max_length=self._max_text_tokens, return_tensors="pt").to(self._device)
        pooled = self._model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return self._model.text_projection(pooled)[0].cpu()

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model.visual_projection(self._tower(pixel_values=pixels).pooler_output)


class DinoEncoder(ImageEncoder):
    """DINOv2 (Oquab et al., TMLR 2024) or DINO (Caron et al., ICCV 2021); the embedding is the class token after the last norm."""

    kind = "DINO"
    models: ClassVar = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel, "vit": ViTModel}
    """'vit' is the first DINO (facebook/dino-vits16 and its like)."""

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model(pixel_values=pixels).last_hidden_state[:, 0]
