"""A pair on a model of the same size that is not the one it was trained on: Apply StageBlender says so, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from comfy_run import Run
from comfy_server import ComfyServer
from graphs import node
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_lora import apply, load_lora, write_lora
from test_quantized import TYPES, write_checkpoint
from test_training import trained_file, training

NAMES = list(ARCHITECTURES)
BIASES = {
    "wan": ("0-attn1.to_q", "blocks.0.self_attn.q.bias"),
    "cogvideox": ("0-attn1.to_q", "blocks.0.q.bias"),
    "ltxv": ("0-attn1.to_q", "transformer_blocks.0.attn1.to_q.bias"),
    "hunyuan": ("0-img_attn.qkv", "double_blocks.0.img_attn.qkv.bias"),
}
SAID = "was trained on another one"


@pytest.fixture(scope="module", params=NAMES)
def kept(request: pytest.FixtureRequest, server: ComfyServer) -> tuple[str, str]:
    """A model's name, and the file of a pair that was trained on it."""
    name = request.param
    saving = {"keep": node("DualRealSavePair", pair=["train", 0], filename_prefix=f"made for {name}", consent="")}
    server.run(training(name, f"made for {name}", steps=1) | saving)
    (file,) = (server.base / "models" / "dualreal").glob(f"made for {name}*.safetensors")
    return name, file.name


def applied(server: ComfyServer, name: str, pair: dict, checkpoint: str = "", **loading: str) -> Run:
    graph = {"model": graphs.load_model(name), "pair": pair, "applied": apply(["pair", 0])}
    graph["shown"] = node("PreviewAny", source=["applied", 0])
    graph["model"]["inputs"] |= {"unet_name": checkpoint or ARCHITECTURES[name].checkpoint, **loading}
    return server.run(graphs.afresh(graph, "pair", "applied"))


def said(run: Run) -> str:
    return run.text("applied") if "applied" in run.outputs else ""


def other_checkpoint(models: Path, name: str, file: str) -> str:
    """Of the same sizes, with other weights."""
    generator = torch.Generator().manual_seed(77)
    folder = models / "diffusion_models"
    weights = load_file(folder / ARCHITECTURES[name].checkpoint)
    others = {key: weight[torch.randperm(len(weight), generator=generator)] if weight.ndim else weight for key, weight in weights.items()}
    save_file({key: weight.contiguous() for key, weight in others.items()}, folder / file)
    return file


def test_the_header_knows_the_base(server: ComfyServer, models: Path, kept: tuple[str, str]) -> None:
    name, _ = kept
    with safe_open(trained_file(server, f"made for {name}"), "pt") as file:
        base = json.loads(file.metadata()["dualreal"])["base"]
    assert (base["file"], base["in_channels"]) == (ARCHITECTURES[name].checkpoint, ARCHITECTURES[name].latent_shape[0])
    key, place = BIASES[name]
    bias = load_file(models / "diffusion_models" / ARCHITECTURES[name].checkpoint)[place]
    assert base["signature"][key] == pytest.approx(bias[torch.linspace(0, len(bias) - 1, 16).round().long()].tolist(), rel=1e-3)


def test_another_model_of_that_size_is_told(server: ComfyServer, models: Path, kept: tuple[str, str]) -> None:
    name, file = kept
    other, begin = other_checkpoint(models, name, f"other {name}.safetensors"), len(server.log())
    sentence = said(applied(server, name, node("DualRealLoadPair", name=file), other))
    assert SAID in sentence and other in sentence and ARCHITECTURES[name].checkpoint in sentence and "other weights" in sentence
    assert sentence in server.log()[begin:]


@pytest.mark.parametrize("form", ["the same", *TYPES, "cast to float8", "cast to float8 e5m2"])
def test_copies_of_the_model_are_not_told_apart(server: ComfyServer, models: Path, kept: tuple[str, str], form: str) -> None:
    name, file = kept
    pair = node("DualRealLoadPair", name=file)
    loading = {"cast to float8": {"weight_dtype": "fp8_e4m3fn"}, "cast to float8 e5m2": {"weight_dtype": "fp8_e5m2"}}.get(form, {})
    checkpoint = write_checkpoint(models / "diffusion_models", form, name) if form in TYPES else ""
    assert said(applied(server, name, pair, checkpoint, **loading)) == ""


def test_nothing_is_said_of_a_pair_that_does_not_know(server: ComfyServer, models: Path) -> None:
    """An imported LoRA; and a pair that came out of Combine."""
    file = write_lora(models, "wan", "comfyui", "knows no base.safetensors")
    other = other_checkpoint(models, "wan", "another wan.safetensors")
    assert said(applied(server, "wan", load_lora("identity", file), other)) == ""


def test_the_experts_of_one_model_are_told_by_name(server: ComfyServer, models: Path) -> None:
    high, low = (other_checkpoint(models, "wan", f"wan2.2_{part}_noise_14B.safetensors") for part in ("high", "low"))
    graph = training("wan", "high", steps=1) | {"applied": apply(["train", 0]), "shown": node("PreviewAny", source=["applied", 0])}
    graph["model"]["inputs"]["unet_name"] = high
    graph["low"] = {**graphs.load_model("wan")}
    graph["low"]["inputs"] = {**graph["low"]["inputs"], "unet_name": low}
    graph["applied"]["inputs"]["model"] = ["low", 0]
    assert said(server.run(graph)) == "", "the same weights under both names"
    path = models / "diffusion_models" / low
    save_file({key: weight.flip(0).contiguous() if weight.ndim else weight for key, weight in load_file(path).items()}, path)
    sentence = said(server.run(graphs.afresh(graph, "low", "applied")))
    assert "the high-noise expert there, the low-noise expert here; other weights" in sentence
