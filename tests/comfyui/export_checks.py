"""Pairs out as LoRA files and back, on the models of `variants`: latents sampled with what ComfyUI's loader and ours read of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import comfy.lora
import comfy.sd
import torch
from checkpoint_forms import LARGEST
from comfy.model_patcher import ModelPatcher
from dualreal_pack.dualreal_core.method.pair import AdapterPair
from dualreal_pack.dualreal_core.storage import export_lora
from dualreal_pack.nodes.lora_import import import_lora
from dualreal_pack.nodes.patching import Strengths, apply_pair
from safetensors.torch import load_file
from variant_bench import Bench, distance

IDENTITY, MOTION = (1.0, 0.6), (0.8, 1.3)
"""Weights of either side in the two groups of blocks of the bench's pairs."""
EVERYWHERE = Strengths(adapts_negative=True, audio=1.0)
READERS = {"comfyui": ("stock",), "kohya": ("stock", "ours"), "diffusers": ("ours",)}
"""By form, who is to read it here. What diffusers and peft make of theirs is tried in the tests of the core."""
ENDS = (".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".alpha")
NEAR = 1e-4
QUANTIZED_NEAR = 0.15
"""Of the effect: the stock loader rounds the sum of weight and LoRA to the format, and rounding of codes tips rounding of activations."""


@dataclass(frozen=True)
class ByGroup:
    """A blend of fixed weights that differ by group, of a pair whose even weight is 1."""

    def scheduled(self, stage: object, noise_level: object = None) -> torch.Tensor:
        return torch.tensor([[*IDENTITY, *MOTION]])

    def weights(self, embedding: torch.Tensor, tokens: list[torch.Tensor], scheduled: torch.Tensor) -> torch.Tensor:
        return scheduled.view(-1, 2, 2).transpose(1, 2)


def by_stock_loader(bench: Bench, file: Path) -> ModelPatcher:
    """Load LoRA at strength 1; every tensor of the file must be known to it."""
    tensors = load_file(file)
    names = comfy.lora.model_lora_keys_unet(bench.model.model, {})
    known = {name.removesuffix(".weight") for name in names}
    unmatched = {key for key in tensors if not any(key.removesuffix(end) in known for end in ENDS)}
    assert not unmatched, f"the stock loader knows nothing of {sorted(unmatched)[:3]}"
    with torch.inference_mode():
        return comfy.sd.load_lora_for_models(bench.model, None, tensors, 1.0, 0.0)[0]


def round_trips(bench: Bench) -> dict[str, float]:
    """Of sampled latents, the greatest difference between each reader of our files and the pair itself, relative to its latents."""
    with torch.inference_mode(False):
        pair: AdapterPair = bench.pair("lora").requires_grad_(False)
    plain, ours = bench.stock(), bench.sampled(apply_pair(bench.model, pair, EVERYWHERE, ByGroup()))
    effect = distance(ours, plain)
    assert effect > 10 * NEAR, "the pair has no effect"
    found = {"effect": effect}
    for form, readers in READERS.items():
        file = bench.folder / f"{bench.variant.name} {form}.safetensors"
        export_lora(file, pair, {"identity": IDENTITY, "motion": MOTION}, form)
        if "stock" in readers:
            found[f"{form}, stock"] = distance(bench.sampled(by_stock_loader(bench, file)), ours)
        if "ours" in readers:
            loaded, note = import_lora(bench.model, file, "motion")
            assert not note, note
            found[f"{form}, ours"] = distance(bench.sampled(apply_pair(bench.model, loaded.pair, EVERYWHERE)), ours)
    return found


def exported(bench: Bench) -> None:
    """What other readers make of our files is what we do."""
    found = round_trips(bench)
    effect = found.pop("effect")
    near = QUANTIZED_NEAR * effect if bench.variant.form in LARGEST else NEAR
    for reader, difference in found.items():
        assert difference < near, f"{reader}: {difference} off, of an effect of {effect}"
