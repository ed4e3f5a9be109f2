"""Training and sampling on checkpoints of lower precision, the form in which large models are shared."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from comfy_server import ComfyServer
from graphs import Graph, node
from safetensors.torch import load_file, save_file
from test_training import training

CHECKPOINT = ARCHITECTURES["wan"].checkpoint
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "int8_tensorwise": torch.int8}
LARGEST = {"float8_e4m3fn": 448, "int8_tensorwise": 127}


def write_checkpoint(folder: Path, form: str) -> str:
    """The tiny Wan with all weights of a type, or with the blocks' matrices quantized, a scale each, as ComfyUI names such formats."""
    weights, layers = {}, {}
    for name, weight in load_file(folder / CHECKPOINT).items():
        if form not in LARGEST:
            weights[name] = weight.to(TYPES[form])
        elif weight.ndim == 2 and name.startswith("blocks."):
            scale = weight.abs().max() / LARGEST[form]
            numbers = weight / scale
            weights[name] = (numbers.round() if form == "int8_tensorwise" else numbers).to(TYPES[form])
            weights[f"{name}_scale"] = scale
            layers[name.removesuffix(".weight")] = {"format": form}
        else:
            weights[name] = weight
    save_file(weights, folder / f"{form}.safetensors", {"_quantization_metadata": json.dumps({"layers": layers})} if layers else None)
    return f"{form}.safetensors"


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
