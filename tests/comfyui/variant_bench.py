"""A model of `variants` on the bench: by the stock loader, what it samples without a pair, and with one."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

import comfy.model_management
import comfy.nested_tensor
import comfy.samplers
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from dualreal_pack.dualreal_core.method.blend import Blend
from dualreal_pack.dualreal_core.method.from_lora import block_layers
from dualreal_pack.dualreal_core.method.pair import AdapterPair, new_pair
from dualreal_pack.nodes.lora_import import import_lora
from dualreal_pack.nodes.patching import Strengths, apply_pair
from safetensors.torch import save_file
from tiny_checkpoints import write_checkpoint
from variant_inputs import empty_latent, noise, noise_like, sampled
from variants import VARIANTS, Variant

SPREAD = 0.2
"""Of the weights of a pair of noise."""
PROMPT_ONLY = Strengths()


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative to the other."""
    return float((one - other).norm() / other.norm())


class Bench:
    """A model of `variants` on the bench: the MODEL by the stock loader, and what it samples without a pair."""

    def __init__(self, name: str, folder: Path) -> None:
        self.variant: Variant = VARIANTS[name]
        self.folder = folder
        self.stock_results: dict[tuple, torch.Tensor] = {}

    @cached_property
    def model(self) -> ModelPatcher:
        with torch.inference_mode():
            return comfy.sd.load_diffusion_model(str(write_checkpoint(self.variant, self.folder)))

    @property
    def transformer(self) -> torch.nn.Module:
        return self.model.model.diffusion_model

    def sampled(self, model: ModelPatcher, **how: object) -> torch.Tensor:
        if how.pop("is_masked", False):
            how = {**how, **self._masked()}
        return sampled(self.variant, model, **how)

    def stock(self, **how: object) -> torch.Tensor:
        """Sampled without a pair, once."""
        key = tuple(sorted(how.items()))
        if key not in self.stock_results:
            self.stock_results[key] = self.sampled(self.model, **how)
            assert self.stock_results[key].isfinite().all(), "the model itself gives no numbers"
        return self.stock_results[key]

    def _masked(self) -> dict[str, torch.Tensor]:
        """A latent of which the first frame, and half of the sound, is to stay as it is; half of one corner's change too."""
        start = noise_like(empty_latent(self.variant), 77)
        masks = [torch.ones_like(one) for one in (start.unbind() if start.is_nested else [start])]
        masks[0][:, :, 0] = 0
        masks[0][:, :, 1, :2, :2] = 0.5
        for sound in masks[1:]:
            sound[:, :, : sound.shape[2] // 2] = 0
        return {"start": start, "mask": comfy.nested_tensor.NestedTensor(masks) if start.is_nested else masks[0]}

    def pair(self, kind: str = "lora", spread: float = SPREAD) -> AdapterPair:
        return make_pair(self.transformer, kind, spread)

    def with_pair(
        self, kind: str = "lora", spread: float = SPREAD, strengths: Strengths = PROMPT_ONLY, blend: Blend | None = None
    ) -> ModelPatcher:
        return apply_pair(self.model, self.pair(kind, spread).requires_grad_(False), strengths, blend)

    @cached_property
    def lora_file(self) -> Path:
        """A LoRA of every layer that a pair may change, by ComfyUI's names."""
        tensors = {}
        for seed, path in enumerate(block_layers(self.transformer)):
            layer = self.transformer.get_submodule(path)
            down, up = noise(seed, 2, layer.in_features), noise(seed + 500, layer.out_features, 2)
            tensors[f"diffusion_model.{path}.lora_A.weight"] = 0.3 * down / layer.in_features**0.5
            tensors[f"diffusion_model.{path}.lora_B.weight"] = 0.3 * up
        file = self.folder / f"{self.variant.name}_lora.safetensors"
        save_file(tensors, file)
        return file

    def with_lora(self, strengths: Strengths) -> ModelPatcher:
        """By our Load LoRA, at an even blend."""
        loaded, _ = import_lora(self.model, self.lora_file, "identity")
        return apply_pair(self.model, copy.deepcopy(loaded.pair), strengths)


def make_pair(transformer: torch.nn.Module, kind: str, spread: float) -> AdapterPair:
    """A pair of small sizes, with noise for weights where there is a spread."""
    with torch.inference_mode(False):
        sizes = {"rank": 4, "alpha": 4.0, "bottleneck_dim": 8, "scale": 2.0, "num_groups": 2}
        pair = new_pair(transformer, 0, identity_kind=kind, motion_kind=kind, **sizes)
        for seed, weight in enumerate(pair.parameters() if spread else ()):
            weight.data = spread * noise(seed, *weight.shape)
        return pair
