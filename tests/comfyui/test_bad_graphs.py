"""Graphs that cannot work: the node is marked, one sentence says what to do, and the server lives on."""

from __future__ import annotations

from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from comfy_run import PromptRejected, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_blending import apply, pair_of, stem
from test_training import training

from dualreal_core.video import write_mp4


def failure(server: ComfyServer, graph: Graph) -> tuple[str, str]:
    """(node id, message) of a graph that must fail, in validation or while it runs."""
    try:
        server.run(graph)
    except PromptRejected as rejected:
        ((node_id, wrong),) = rejected.node_errors.items()
        return node_id, " ".join(f"{error['message']} {error['details']}" for error in wrong["errors"])
    except RunFailed as failed:
        return failed.node_id, failed.message
    raise AssertionError("the graph ran")


def assert_lives_on(server: ComfyServer) -> None:
    image = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    assert server.run({"image": image, "shown": node("PreviewImage", images=["image", 0])}).files("shown")


def shown(graph: Graph, link: list) -> Graph:
    return graph | {"shown": node("PreviewAny", source=link)}


def blended(model: str, made_for: str) -> Graph:
    pair = {"other": graphs.load_model(made_for), "pair": pair_of(["other", 0]), "blended": apply(["model", 0], ["pair", 0])}
    return stem(model) | pair | graphs.sampling(model, ["blended", 0]) | {"save": graphs.save(["sample", 0])}


def with_pair(**parts: dict) -> Graph:
    return stem("wan") | {"pair": pair_of(["model", 0])} | parts


def changed(name: str, part: str, **inputs: object) -> Graph:
    graph = training("wan", name)
    graph[part]["inputs"] |= inputs
    return graph


CASES = {
    "pair of another architecture": (lambda: blended("wan", "ltxv"), "blended", "family"),
    "unequal lists": (lambda: changed("unequal", "photo_texts", count=5), "train", "2 latents and 5 conditioning"),
    "NaN latents": (lambda: changed("nan", "clips", fill="nan"), "train", "NaN"),
    "run name outside the folder": (lambda: changed("../../outside", "settings"), "train", "cannot name a run"),
    "a range in which a pair never acts": (
        lambda: shown(with_pair(b=apply(["model", 0], ["pair", 0], start_percent=0.6, end_percent=0.4)), ["b", 0]),
        "b",
        "never act",
    ),
    "blend map of a plain model": (
        lambda: stem("wan") | {"map": node("DualRealBlendMap", model=["model", 0], latent=["latent", 0])},
        "map",
        "carries no pair",
    ),
    "missing pair file": (
        lambda: shown({"pair": node("DualRealLoadPair", name="gone.safetensors")}, ["pair", 0]),
        "pair",
        "gone.safetensors",
    ),
    "pair file outside its folder": (
        lambda: shown({"pair": node("DualRealLoadPair", name="../../secret.safetensors")}, ["pair", 0]),
        "pair",
        "secret",
    ),
    "saving outside the folder": (
        lambda: with_pair(keep=node("DualRealSavePair", pair=["pair", 0], filename_prefix="../../x", consent="")),
        "keep",
        "../../x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_node_is_marked_with_one_sentence(server: ComfyServer, case: str) -> None:
    make, node_id, words = CASES[case]
    found, message = failure(server, make())
    assert found == node_id and words in message, (found, message)
    assert "\n" not in message and "Traceback" not in message
    assert_lives_on(server)


@pytest.fixture(scope="module")
def loras(server: ComfyServer) -> Path:
    folder = server.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    noise = {"lora_A.weight": torch.randn(2, 256), "lora_B.weight": torch.randn(256, 2)}
    safetensors.torch.save_file({f"diffusion_model.strange.{key}": tensor for key, tensor in noise.items()}, folder / "strange.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no tensors")
    return folder


@pytest.mark.parametrize("lora", ["strange.safetensors", "broken.safetensors"])
def test_lora_that_does_not_fit(server: ComfyServer, loras: Path, lora: str) -> None:
    graph = stem("wan") | {"side": node("DualRealLoadIdentityLora", model=["model", 0], lora=lora)}
    found, message = failure(server, shown(graph, ["side", 0]))
    assert found == "side" and lora in message and "\n" not in message, message
    assert_lives_on(server)


def test_a_reference_clip_that_does_not_fit_memory_is_refused_before_it_is_decoded(server: ComfyServer) -> None:
    write_mp4(server.base / "input" / "long.mp4", torch.zeros(9, 3, 32, 32), fps=10)
    graph = {
        "image": node("EmptyImage", width=32, height=32, batch_size=1, color=0),
        "clip": node("LoadVideo", file="long.mp4"),
        "check": node("BenchScarceEvaluate", images=["image", 0], motion=["clip", 0]),
    }
    found, message = failure(server, graph)
    assert found == "check" and "long.mp4" in message and "decoding it needs" in message, message
    assert_lives_on(server)


def test_empty_dataset(server: ComfyServer) -> None:
    (server.base / "input" / "empty set").mkdir(parents=True, exist_ok=True)
    graph = {
        "base": node("DualRealLoadEmbeddedModel"),
        "photos": node("LoadImageTextDataSetFromFolder", folder="empty set"),
        "data": node(
            "DualRealIdentityDataset", images=["photos", 0], texts=["photos", 1], vae=["base", 2], clip=["base", 1],
            width=32, height=32, num_crops=1, crop_margin=0.0,
        ),
    }  # fmt: skip
    found, message = failure(server, shown(graph, ["data", 3]))
    assert found in {"photos", "data"} and message, (found, message)
    assert_lives_on(server)


def test_several_crops_without_a_margin(server: ComfyServer) -> None:
    graph = {
        "base": node("DualRealLoadEmbeddedModel"),
        "example": node("DualRealExampleData", identity="vex", motion="figure-eight", seed=0),
        "data": node(
            "DualRealIdentityDataset", images=["example", 0], texts=["example", 1], vae=["base", 2], clip=["base", 1],
            width=32, height=32, num_crops=4, crop_margin=0.0,
        ),
    }  # fmt: skip
    found, message = failure(server, shown(graph, ["data", 3]))
    assert found == "data" and "repeats one crop; raise crop_margin or set num_crops to 1" in message, (found, message)
    assert_lives_on(server)
