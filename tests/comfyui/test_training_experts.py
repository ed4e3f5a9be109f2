"""The Joint Trainer on the experts of Wan 2.2: one alone at its own noise."""

from __future__ import annotations

import graphs
import pytest
import safetensors.torch
import torch
from architectures import WAN
from comfy_server import ComfyServer
from graphs import Graph, node
from test_training import training

HIGH, LOW = "wan2.2_t2v_high_noise_14B.safetensors", "wan2.2_t2v_low_noise_14B.safetensors"
BOUNDARY = 0.875


@pytest.fixture(scope="module")
def experts(server: ComfyServer) -> None:
    """Two checkpoints of noise, of one size and with other values."""
    folder = server.base / "models" / "diffusion_models"
    (known,) = folder.rglob(WAN.checkpoint)
    weights, generator = safetensors.torch.load_file(known), torch.Generator().manual_seed(5)
    safetensors.torch.save_file(weights, known.parent / HIGH)
    others = {name: weight + 0.3 * weight.std() * torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    safetensors.torch.save_file(others, known.parent / LOW)


def load(file: str) -> dict:
    return node("UNETLoader", unet_name=file, weight_dtype="default")


def probed(graph: Graph) -> Graph:
    """The graph with all calls of its model noted, for node `report`."""
    graph = {**graph, "probe": node("BenchProbe", model=["model", 0])}
    graph["train"]["inputs"]["model"] = ["probe", 0]
    return graph | {"report": graphs.report(["probe", 0], after=["train", 2])}


@pytest.mark.parametrize(
    ("file", "settings", "lowest", "highest"),
    [(HIGH, {}, BOUNDARY, 1.0), (LOW, {}, 0.0, BOUNDARY), (LOW, {"sigma_min": 0.0, "sigma_max": 1.0}, 0.0, 1.0)],
)
def test_an_expert_alone_is_trained_at_its_own_noise(server: ComfyServer, experts, file, settings, lowest, highest) -> None:
    name = f"alone {file[10:14]} {len(settings)}"
    graph = training("wan", name, evaluate_every=3, preservation_ratio=0.5, steps=12, preview_every=0, **settings)
    run = server.run(probed({**graph, "model": load(file)}))
    sigmas = [timestep / 1000 for call in run.report("report")["calls"] for timestep in call["timestep"]]
    assert len(sigmas) > 20 and min(sigmas) >= lowest - 1e-6 and max(sigmas) <= highest
    if settings:
        assert min(sigmas) < BOUNDARY < max(sigmas)
        assert "noise levels" not in run.text("train")
    else:
        expert = "high-noise" if file == HIGH else "low-noise"
        assert f"Trains at noise levels (sigma) {lowest:g} to {highest:g}, as the model is the {expert} expert" in run.text("train")
