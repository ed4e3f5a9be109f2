"""Forms of LoRA files on models of diffusers: what peft itself makes of its own, and what the core makes of all."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.lora_pipeline import (
    CogVideoXLoraLoaderMixin,
    HunyuanVideoLoraLoaderMixin,
    LTX2LoraLoaderMixin,
    LTXVideoLoraLoaderMixin,
    WanLoraLoaderMixin,
)
from lora_forms import FORMS, Sheet
from lora_forms.diffusers_models import DiffusersModel
from peft import PeftModel
from tiny import TinyBase

OF_PEFT = [
    "adapter_config.json: alpha",
    "adapter_config.json: rsLoRA",
    "adapter_config.json: rank and alpha patterns",
    "adapter_config.json: patterns and rsLoRA",
    "adapter_config.json: alpha pattern as regular expression",
    "lora_bias",
    "DoRA, lora_magnitude_vector, folder",
    "DoRA and rsLoRA, folder",
    "LoKr of peft, full, alpha over r",
    "LoKr of peft, w2 of two matrices",
    "LoHa of peft",
    "OFT on inputs",
    "OFT on inputs, exact rotations",
    "IA3 of peft",
    "modules_to_save",
]
BY_DIFFUSERS = {
    "Wan, diffusers names, alpha in metadata": ("wan", WanLoraLoaderMixin),
    "Wan, native names, A/B, fp16": ("wan", WanLoraLoaderMixin),
    "head and embeddings, diffusers names": ("wan", WanLoraLoaderMixin),
    "CogVideoX, diffusers names": ("cogvideox", CogVideoXLoraLoaderMixin),
    "CogVideoX, modulation": ("cogvideox", CogVideoXLoraLoaderMixin),
    "LTX-Video, diffusers names": ("ltx", LTXVideoLoraLoaderMixin),
    "LTX-2, diffusers names": ("ltx2", LTX2LoraLoaderMixin),
    "LTX-2, sound too": ("ltx2", LTX2LoraLoaderMixin),
    "HunyuanVideo, diffusers names (q, k, v apart)": ("hunyuan", HunyuanVideoLoraLoaderMixin),
    "HunyuanVideo 1.5, diffusers names": ("hunyuan 1.5", HunyuanVideoLoraLoaderMixin),
}
"""Forms that diffusers reads as they are meant: the family, and whose reading."""
BLOCKS = 3


def changes_of(transformer: torch.nn.Module, before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What has become of parameters."""
    after = dict(transformer.named_parameters())
    return {name: after[name].detach().double() - weight.double() for name, weight in before.items()}


@pytest.mark.parametrize("name", OF_PEFT)
def test_definitions_are_what_peft_computes(name, tmp_path):
    transformer = TinyBase("wan", BLOCKS).transformer
    model = DiffusersModel.of("wan", transformer)
    before = {name: weight.detach().clone() for name, weight in transformer.named_parameters()}
    sheet = Sheet(model.weights)
    FORMS[name].write(sheet)
    sheet.config = {**sheet.config, "target_modules": sorted({layer.removeprefix("base_model.model.") for layer in layers_in(sheet)})}
    sheet.save(tmp_path)
    merged = PeftModel.from_pretrained(transformer, tmp_path).merge_and_unload()
    wanted = model.changes(sheet.deltas)
    for parameter, change in changes_of(merged, before).items():
        torch.testing.assert_close(change, wanted.get(parameter, torch.zeros_like(change)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", BY_DIFFUSERS)
def test_names_are_what_diffusers_calls_layers(name, tmp_path):
    family, loader = BY_DIFFUSERS[name]
    transformer = TinyBase(family, 2 * BLOCKS if family == "hunyuan" else BLOCKS).transformer
    model = DiffusersModel.of(family, transformer)
    before = {name: weight.detach().clone() for name, weight in transformer.named_parameters()}
    sheet = Sheet(model.weights)
    FORMS[name].write(sheet)
    tensors, metadata = loader.lora_state_dict(sheet.save(tmp_path), return_lora_metadata=True)
    transformer.load_lora_adapter(tensors, prefix="transformer", metadata=metadata)
    transformer.fuse_lora()
    transformer.unload_lora()
    wanted = model.changes(sheet.deltas)
    assert wanted
    for parameter, change in changes_of(transformer, before).items():
        torch.testing.assert_close(change, wanted.get(parameter, torch.zeros_like(change)), rtol=0, atol=2e-6)


def layers_in(sheet: Sheet) -> list[str]:
    """Paths of the layers that a sheet changes by an adapter."""
    marks = (".lora_", ".lokr_", ".hada_", ".oft_", ".ia3_")
    return [key.partition(mark)[0] for key in sheet.tensors for mark in marks if mark in key]
