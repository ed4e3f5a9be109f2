"""Training and sampling on checkpoints of lower precision, the form in which large models are shared."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from checkpoint_forms import LARGEST, TYPES, in_form
from comfy_server import ComfyServer
from graphs import Graph, node
from safetensors.torch import load_file, save_file
from test_lora import LAYERS, apply, load_lora
from test_training import training


def write_checkpoint(folder: Path, form: str, architecture: str = "wan") -> str:
    """A tiny model's file with its weights in a form of `checkpoint_forms`."""
    weights, metadata = in_form(load_file(folder / ARCHITECTURES[architecture].checkpoint), form)
    file = f"{architecture} {form}.safetensors"
    save_file(weights, folder / file, metadata)
    return file


def losses_of(server: ComfyServer, graph: Graph) -> list[float]:
    return json.loads(server.run(graph).text("losses").replace("'", '"'))["loss"]


@pytest.fixture(scope="module")
def full_precision(server: ComfyServer) -> list[float]:
    return losses_of(server, training("wan", "full precision"))


@pytest.mark.parametrize("form", [*TYPES, "cast to float8"])
def test_trains_as_in_full_precision_and_samples(server: ComfyServer, full_precision: list[float], form: str) -> None:
    graph = training("wan", f"weights in {form}")
    if form in TYPES:
        graph["model"]["inputs"]["unet_name"] = write_checkpoint(server.base / "models" / "diffusion_models", form)
    else:
        graph["model"]["inputs"]["weight_dtype"] = "fp8_e4m3fn"
    begin = len(server.log())
    assert losses_of(server, graph) == pytest.approx(full_precision, rel=0.1)
    assert ("Detected mixed precision quantization" in server.log()[begin:]) == (form in LARGEST)
    blended = graph | graphs.text_to_latent("wan") | graphs.sampling("wan", ["blended", 0])
    blended["model"] = graph["model"]
    blended["blended"] = node(
        "DualRealApplyStageBlender", model=["model", 0], pair=["train", 0], identity_strength=1.0, motion_strength=1.0,
        start_percent=0.0, end_percent=1.0, negative="adapted",
    )  # fmt: skip
    assert server.tensors(server.run(blended))["0.samples"].isfinite().all()


LAST_LAYERS = {"wan": "blocks.1.ffn.2", "ltxv": "transformer_blocks.1.ff.net.2"}
"""Layers that ComfyUI computes without calling them where their weights are of INT8."""


@pytest.mark.parametrize("form", list(LARGEST))
@pytest.mark.parametrize("name", list(LAST_LAYERS))
def test_a_lora_acts_as_by_the_stock_loader(server: ComfyServer, models: Path, name: str, form: str) -> None:
    """The layers of such a model are of ComfyUI's own class. The stock loader rounds the sum of both to the format, we do not."""
    layers = dict.fromkeys([*LAYERS[name], LAST_LAYERS[name]])
    weights = load_file(models / "diffusion_models" / ARCHITECTURES[name].checkpoint)
    generator, tensors = torch.Generator().manual_seed(7), {}
    for layer in layers:
        rows, columns = weights[f"{layer}.weight"].shape
        tensors[f"diffusion_model.{layer}.lora_A.weight"] = torch.randn(4, columns, generator=generator) / columns**0.5
        tensors[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    (models / "loras").mkdir(exist_ok=True)
    save_file(tensors, models / "loras" / f"{name} quantized.safetensors")
    checkpoint = write_checkpoint(models / "diffusion_models", form, name)

    def predicted(extra: Graph, model: str) -> torch.Tensor:
        graph = graphs.text_to_latent(name) | extra | graphs.raw_predictions([model, 0], [0.9, 0.4])
        graph["model"]["inputs"]["unet_name"] = checkpoint
        return server.tensors(server.run(graph))["0.samples"]

    file = f"{name} quantized.safetensors"
    stock = predicted({"lora": node("LoraLoaderModelOnly", model=["model", 0], lora_name=file, strength_model=1.0)}, "lora")
    ours = predicted({"lora": load_lora("identity", file), "applied": apply(["lora", 0])}, "applied")
    assert (ours - stock).norm() < 0.1 * (stock - predicted({}, "model")).norm()
