"""The Joint Trainer on the experts of Wan 2.2: one alone at its own noise, and both in one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from architectures import ARCHITECTURES
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_training import STEPS, assert_equal, trained_file, training, weights
from variants import VARIANTS

HIGH, LOW = "wan2.2_t2v_high_noise_trained.safetensors", "wan2.2_t2v_low_noise_trained.safetensors"
I2V_HIGH, I2V_LOW = (file.replace("t2v", "i2v") for file in (HIGH, LOW))
BOUNDARY, I2V_BOUNDARY = 0.875, 0.9
HUNYUAN_FP8 = node("UNETLoader", unet_name=ARCHITECTURES["hunyuan"].checkpoint, weight_dtype="fp8_e4m3fn")


@pytest.fixture(scope="module")
def experts(models: Path, checkpoints: Callable[..., list[str]]) -> None:
    """Checkpoints of noise for two kinds of model, both experts of one size and with other values."""
    checkpoints("wan22_i2v")
    folder, generator = models / "diffusion_models", torch.Generator().manual_seed(5)
    for kind, files in {"wan": (HIGH, LOW), "wan22_i2v": (I2V_HIGH, I2V_LOW)}.items():
        weights = safetensors.torch.load_file(folder / VARIANTS[kind].checkpoint)
        safetensors.torch.save_file(weights, folder / files[0])
        others = {name: weight + 0.3 * weight.std() * torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
        safetensors.torch.save_file(others, folder / files[1])


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
    name = f"alone {file[11:15]} {len(settings)}"
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


def both(run_name: str, **settings: object) -> Graph:
    """Trains a pair for both experts, in turns of two steps, with every call of either noted for the nodes `report` and `low_report`."""
    graph = probed({**training("wan", run_name, **settings), "model": load(HIGH)})
    graph["options"]["inputs"] |= {"expert_steps": 2} | {name: value for name, value in settings.items() if name == "expert_steps"}
    graph |= {
        "low": load(LOW),
        "low_probe": node("BenchProbe", model=["low", 0]),
        "low_report": graphs.report(["low_probe", 0], after=["train", 2]),
    }
    graph["train"]["inputs"]["low_noise_model"] = ["low_probe", 0]
    return graph


def sigmas(report: dict) -> list[float]:
    return [timestep / 1000 for call in report["calls"] for timestep in call["timestep"]]


def test_both_experts_in_one_run_interrupted_and_continued(server: ComfyServer, experts) -> None:
    """The same bit for bit as without the interrupt; each expert sees noise of its own range alone; the pair acts in both."""
    settings = {"accumulation": 4, "preservation_ratio": 0.5, "evaluate_every": 3, "preview_every": 2}
    preview = {"vae": node("VAELoader", vae_name=graphs.WAN_VAE)}
    watched = both("both at once", **settings) | preview
    watched["train"]["inputs"] |= {"preview_conditioning": ["clip_texts", 0], "vae": ["vae", 0]}
    run = server.run(watched)
    assert run.text("steps") == str(STEPS) and len(run.previews) >= 2
    said = run.text("train")
    assert "Trains both experts in turns of 2 steps: the high-noise one at noise levels (sigma) 0.875 to 1, the low-noise one at" in said
    high, low = sigmas(run.report("report")), sigmas(run.report("low_report"))
    assert len(high) > 20 and min(high) >= BOUNDARY and len(low) > 20 and max(low) < BOUNDARY

    interrupted = both("both", **settings)
    prompt_id = server.queue(interrupted)
    server.wait_for_progress(prompt_id, "train", 3)
    server.interrupt()
    with pytest.raises(RunFailed) as stopped:
        server.wait(prompt_id)
    assert stopped.value.is_interrupt
    continued = server.run(interrupted)
    assert "Continues the run" in continued.text("train") and continued.text("steps") == str(STEPS)
    whole = weights(trained_file(server, "both at once"))
    assert_equal(weights(trained_file(server, "both")), whole)
    trained = {int(key.split(".")[1].partition("-")[0]) for key, tensor in whole.items() if ".up." in key and tensor.any()}
    assert trained == set(range(6))  # three blocks of each expert


def test_both_experts_of_image_to_video(server: ComfyServer, experts) -> None:
    """They switch at another noise, and see each sample's image beside it."""
    graph = both("both with images", steps=4, preview_every=0, evaluate_every=2) | {"model": load(I2V_HIGH), "low": load(I2V_LOW)}
    graph |= {
        "vae": node("VAELoader", vae_name=graphs.WAN_VAE),
        "picture": node("EmptyImage", width=64, height=48, batch_size=1, color=0x336699),
    }
    for source, side, length in (("photo_texts", "identity", 1), ("clip_texts", "motion", 9)):
        size = {"width": 64, "height": 48, "length": length, "batch_size": 1}
        texts, given = [source, 0], {"vae": ["vae", 0], "start_image": ["picture", 0]}
        graph[f"{side}_shown"] = node("WanImageToVideo", positive=texts, negative=texts, **given, **size)
        graph["train"]["inputs"][f"{side}_conditioning"] = [f"{side}_shown", 0]
    run = server.run(graph)
    assert run.text("steps") == "4"
    high, low = sigmas(run.report("report")), sigmas(run.report("low_report"))
    assert len(high) > 4 and min(high) >= I2V_BOUNDARY - 1e-6 and len(low) > 4 and BOUNDARY < max(low) < I2V_BOUNDARY


def test_the_pair_of_one_run_acts_in_both_experts(server: ComfyServer, experts) -> None:
    """And the experts are as they were."""
    graph = both("applied", expert_steps=3, preview_every=0)
    blended = {
        "applied": node(
            "DualRealApplyTwoExperts", model_high=["model", 0], model_low=["low", 0], pair=["train", 0], identity_strength=1.0,
            motion_strength=1.0, start_percent=0.0, end_percent=1.0, negative="adapted",
        ),
    }  # fmt: skip
    for place, (model, output) in enumerate((("model", 0), ("low", 1))):
        stock = {**graphs.text_to_latent("wan"), "model": load((HIGH, LOW)[place])}
        before = server.tensors(server.run(graphs.afresh(stock, "sample")))["0.samples"]
        parts = graphs.text_to_latent("wan") | graph | blended | graphs.sampling("wan", ["applied", output])
        after = server.tensors(server.run(parts))["0.samples"]
        assert after.isfinite().all() and not after.equal(before), model
        assert server.tensors(server.run(graphs.afresh(stock, "sample")))["0.samples"].equal(before)


def test_another_low_noise_expert_is_another_run(server: ComfyServer, experts) -> None:
    graph = both("another low", steps=2, preview_every=0, expert_steps=1)
    server.run(graph)
    graph["low"] = {**load(ARCHITECTURES["wan"].checkpoint)}
    assert "Starts afresh" in server.run(graph).text("train")
    alone = {**graph, "train": {**graph["train"], "inputs": {**graph["train"]["inputs"]}}}
    del alone["train"]["inputs"]["low_noise_model"], alone["low_report"]
    assert "Starts afresh" in server.run(alone).text("train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": load(LOW), "low": load(HIGH)}, "model is the low-noise expert by its name .*wire the high-noise expert into model"),
        ({"low": node("UNETLoader", unet_name=HIGH, weight_dtype="fp8_e4m3fn")}, "low_noise_model is the high-noise expert by its name"),
        ({"low": node("ModelSamplingSD3", model=["model", 0], shift=3.0)}, "are the same MODEL"),
        ({"low": graphs.load_model("hunyuan")}, "are of different kinds"),
        ({"model": graphs.load_model("hunyuan"), "low": HUNYUAN_FP8}, "has no two experts that are known: unwire it"),
    ],
)
def test_wrong_wires_are_told(server: ComfyServer, experts, change, words) -> None:
    graph = both("wrong", steps=1) | change
    with pytest.raises(RunFailed, match=words) as failed:
        server.run(graph)
    assert failed.value.node_id == "train"


def test_both_experts_are_sampled_with_one_shift(server: ComfyServer, experts) -> None:
    graph = both("shifts", steps=1) | {"shifted": node("ModelSamplingSD3", model=["low_probe", 0], shift=3.0)}
    graph["train"]["inputs"]["low_noise_model"] = ["shifted", 0]
    with pytest.raises(RunFailed, match="different noise schedules: put the same shift node"):
        server.run(graph)
