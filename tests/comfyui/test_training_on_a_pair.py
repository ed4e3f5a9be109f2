"""Training on a MODEL that carries a pair or another LoRA: what is learned, and which run is found again."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_blending import apply, pair_of, write_stock_lora
from test_training import STEPS, training


def upon(run_name: str, model: dict, **others: dict) -> Graph:
    """Trains Wan, on which other nodes were put: `model`, which may use the pair of noise in node `old`."""
    graph = training("wan", run_name) | {"old": pair_of(["model", 0], spread=0.3, seed=5), "changed": model, **others}
    graph["train"] = node("DualRealJointTrainer", **{**graph["train"]["inputs"], "model": ["changed", 0]})
    return graph


def test_gradients_are_those_of_the_pass_that_the_pair_was_in(server: ComfyServer) -> None:
    """Also where blocks are run again for the backward pass."""
    graph = {
        "model": graphs.load_model("wan"),
        "old": pair_of(["model", 0], spread=0.3, seed=5),
        "changed": apply(["model", 0], ["old", 0]),
        "latent": graphs.latents("wan", seed=1),
        "text": graphs.conditioning("wan", seed=2),
        "check": node("BenchGradients", model=["changed", 0], latent=["latent", 0], conditioning=["text", 0], kind="lora"),
    }
    errors = json.loads(server.run(graph).text("check"))
    assert max(errors.values()) < 1e-3, errors


def test_the_pair_acts_in_its_part_of_denoising(server: ComfyServer) -> None:
    """In a part that training never draws, what is learned is what is learned without it."""
    plain = server.run(training("wan", "no pair")).text("losses")
    brief = server.run(upon("brief", apply(["model", 0], ["old", 0], end_percent=0.001))).text("losses")
    assert brief == plain != server.run(upon("always", apply(["model", 0], ["old", 0]))).text("losses")


def test_the_pair_follows_its_schedule(server: ComfyServer) -> None:
    losses = [
        server.run(
            upon(
                preset,
                apply(["model", 0], ["old", 0], blend=["blend", 0]),
                blend=node("DualRealScheduleBlend", preset=preset),
            )
        ).text("losses")
        for preset in ("identity early", "identity late")
    ]
    assert losses[0] != losses[1]


def test_a_run_in_half_precision_is_found_again(server: ComfyServer) -> None:
    """Sampling casts the pair that the MODEL carries; it is the same pair."""
    graph = upon("half", apply(["half", 0], ["old", 0]), half=node("ModelComputeDtype", model=["model", 0], dtype="bf16"))
    server.run(graph)
    sampled = {key: graph[key] for key in ("model", "half", "old", "changed")} | {
        "pos": graphs.conditioning("wan", seed=11),
        "neg": graphs.conditioning("wan", seed=12),
        "latent": graphs.empty_latent("wan"),
        "save": graphs.save(["sample", 0]),
    }
    server.run(sampled | graphs.sampling("wan", ["changed", 0]))
    assert f"after step {STEPS}" in server.run(graphs.afresh(graph, "train")).text("train")


@pytest.mark.parametrize("num_pairs", [1, 2])
def test_a_model_that_was_sampled_in_half_precision_can_be_trained_on(server: ComfyServer, num_pairs: int) -> None:
    """ComfyUI loads and casts in inference mode, whose tensors autograd refuses; of whichever pair. What is learned is the same."""
    graph = upon(f"sampled {num_pairs}", apply(["half", 0], ["old", 0]), half=node("ModelComputeDtype", model=["model", 0], dtype="bf16"))
    if num_pairs == 2:
        graph |= {"first": graph["changed"], "other": pair_of(["model", 0], spread=0.3, seed=6, kind="bottleneck")}
        graph["changed"] = apply(["first", 0], ["other", 0], negative="adapted")
    graph = graphs.afresh(graph, "changed", *(["first"] if num_pairs == 2 else []))  # once: both prompts below share what it makes
    sampling = graphs.text_to_latent("wan") | graphs.sampling("wan", ["changed", 0])
    sampled = server.run({key: graph[key] for key in graph if key not in ("train", "steps", "losses")} | sampling)
    assert server.tensors(sampled)["0.samples"].isfinite().all()
    losses = server.run(graph).text("losses")
    graph["train"]["inputs"]["name"] = f"unsampled {num_pairs}"
    assert server.run(graphs.afresh(graph, "changed", "train")).text("losses") == losses


def test_a_pair_is_not_rounded_for_those_who_come_after(server: ComfyServer) -> None:
    """A MODEL in half precision and one in full share a pair; each samples as it does alone."""
    graph = graphs.text_to_latent("wan") | {"old": pair_of(["model", 0], spread=0.3, seed=5), "changed": apply(["model", 0], ["old", 0])}
    graph["half"] = node("ModelComputeDtype", model=["changed", 0], dtype="bf16")
    whole, half = (graph | graphs.sampling("wan", [key, 0]) for key in ("changed", "half"))
    alone = server.tensors(server.run(graphs.afresh(whole, "changed")))["0.samples"]
    low = server.tensors(server.run(graphs.afresh(half, "latent")))["0.samples"]
    behind = server.tensors(server.run(graphs.afresh(whole, "latent")))["0.samples"]
    assert behind.equal(alone) and not low.equal(alone)


def test_another_reference_starts_afresh(server: ComfyServer) -> None:
    first = training("wan", "with references", adapter="bottleneck") | {
        "references": node("BenchReferences", embedding_dim=6, seed=1, count=2)
    }
    first["train"]["inputs"]["motion_references"] = ["references", 0]
    parts = {key: first[key] for key in ("references", "settings")}
    for seed in (3, 4):
        graph = upon(
            "referred",
            apply(["model", 0], ["first", 0], reference=["reference", 0]),
            reference=node("BenchReferences", embedding_dim=6, seed=seed, count=1),
            first=first["train"],
            references=parts["references"],
            bottlenecks=parts["settings"],
        )
        graph["first"]["inputs"]["settings"] = ["bottlenecks", 0]
        said = server.run(graph).text("train")
    assert "Starts afresh" in said


def test_a_change_of_any_weight_starts_afresh(server: ComfyServer) -> None:
    assert server.run({"check": node("BenchFingerprint")}).text("check") == "[]"


def test_a_bypass_lora_is_refused(server: ComfyServer, models: Path) -> None:
    """Its hooks are on the model it was loaded for, and training is on a copy."""
    lora = write_stock_lora(models, "wan")
    bypassed = upon("bypassed", node("LoraLoaderBypassModelOnly", model=["model", 0], lora_name=lora, strength_model=1.0))
    with pytest.raises(RunFailed, match="bypass") as failed:
        server.run(bypassed)
    assert failed.value.node_id == "train"
    merged = upon("merged", node("LoraLoaderModelOnly", model=["model", 0], lora_name=lora, strength_model=1.0))
    assert server.run(merged).text("losses") != server.run(training("wan", "unmerged")).text("losses")


def test_a_model_that_wants_an_image_is_refused(server: ComfyServer, models: Path) -> None:
    folder = models / "diffusion_models"
    weights = safetensors.torch.load_file(folder / "tiny_wan.safetensors")
    weight = weights["patch_embedding.weight"]
    weights["patch_embedding.weight"] = torch.cat([weight, torch.zeros_like(weight), torch.zeros_like(weight)[:, :4]], dim=1)
    safetensors.torch.save_file(weights, folder / "wants an image.safetensors")
    graph = training("wan", "image to video")
    graph["model"]["inputs"]["unet_name"] = "wants an image.safetensors"
    with pytest.raises(RunFailed, match="image to video") as failed:
        server.run(graph)
    assert failed.value.node_id == "train"
