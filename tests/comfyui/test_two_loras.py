"""Blend Two LoRAs on a real ComfyUI: exactness against its own loaders, more than two sides, two experts, and what is not read again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from comfy_run import Run, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from safetensors.torch import save_file
from test_lora import equal, matrices, predictions

NOISY, CLEANER = 0.9, 0.4
"""The sigmas of `predictions`, which are noise levels."""
HIGH, LOW = "wan2.2_t2v_high_noise_14B.safetensors", "wan2.2_t2v_low_noise_14B.safetensors"


def write(models: Path, file: str, seed: int, trigger: str = "") -> str:
    """A LoRA of its own for each seed, on the layers of `matrices`."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer, (down, up, _) in matrices(models, "wan").items():
        tensors[f"diffusion_model.{layer}.lora_A.weight"] = 0.1 * torch.randn(down.shape, generator=generator)
        tensors[f"diffusion_model.{layer}.lora_B.weight"] = 0.5 * torch.randn(up.shape, generator=generator)
    (models / "loras").mkdir(exist_ok=True)
    save_file(tensors, models / "loras" / file, {"modelspec.trigger_phrase": trigger} if trigger else {})
    return file


def blend_two(identity: str, motion: str, model: list | None = None, **settings: object) -> dict:
    common = {
        "identity_strength": 1.0, "motion_strength": 1.0, "preset": "even", "identity_early": 0.4, "start_percent": 0.0, "end_percent": 1.0,
        "negative": "adapted",
    }  # fmt: skip
    return node("DualRealBlendTwoLoras", model=model or ["model", 0], identity_lora=identity, motion_lora=motion, **{**common, **settings})


def stock(*files_and_strengths: tuple[str, float]) -> tuple[Graph, list]:
    """ComfyUI's loaders one behind the other, and the last one's MODEL."""
    graph: Graph = {}
    link = ["model", 0]
    for number, (file, strength) in enumerate(files_and_strengths):
        graph[f"stock-{number}"] = node("LoraLoaderModelOnly", model=link, lora_name=file, strength_model=strength)
        link = [f"stock-{number}", 0]
    return graph, link


def by_stock(server: ComfyServer, *files_and_strengths: tuple[str, float]) -> torch.Tensor:
    return predictions(server, "wan", *stock(*files_and_strengths))


def ours(server: ComfyServer, **nodes: dict) -> torch.Tensor:
    """Predictions on the MODEL of the last node."""
    return predictions(server, "wan", nodes, [list(nodes)[-1], 0])


@pytest.fixture(scope="module")
def files(models: Path) -> tuple[str, str, str]:
    return write(models, "cat.safetensors", 1, "sks cat"), write(models, "walk.safetensors", 2), write(models, "hat.safetensors", 3)


def test_at_even_weights_it_is_two_loaders(server: ComfyServer, files: tuple[str, str, str]) -> None:
    cat, walk, _ = files
    equal(ours(server, two=blend_two(cat, walk)), by_stock(server, (cat, 1.0), (walk, 1.0)))
    scaled = blend_two(cat, walk, identity_strength=0.5, motion_strength=1.5)
    equal(ours(server, two=scaled), by_stock(server, (cat, 0.5), (walk, 1.5)))


def test_without_a_file_the_other_acts_alone(server: ComfyServer, files: tuple[str, str, str]) -> None:
    cat, walk, _ = files
    equal(ours(server, two=blend_two(cat, "none")), by_stock(server, (cat, 1.0)))
    equal(ours(server, two=blend_two("none", walk)), by_stock(server, (walk, 1.0)))
    with pytest.raises(RunFailed, match="both 'none'"):
        ours(server, two=blend_two("none", "none"))


def test_movement_first_begins_with_the_dial(server: ComfyServer, files: tuple[str, str, str]) -> None:
    """At sigma .9 and .4 the preset's weights, as two loaders at these strengths: late the identity is alone."""
    cat, walk, _ = files
    for early in (0.0, 0.8):
        found = ours(server, two=blend_two(cat, walk, preset="movement first", identity_early=early))
        equal(found[:1], by_stock(server, (cat, early), (walk, 1.2))[:1])
        equal(found[1:], by_stock(server, (cat, 1.0))[1:])
    dialled = [ours(server, two=blend_two(cat, walk, identity_early=early)) for early in (0.0, 0.8)]
    assert dialled[0].equal(dialled[1]), "the dial acts with another preset"


def test_a_wired_blend_wins_over_the_preset(server: ComfyServer, files: tuple[str, str, str]) -> None:
    cat, walk, _ = files
    share = node("DualRealFixedBlend", identity_share=0.25)
    found = ours(server, share=share, two=blend_two(cat, walk, preset="movement first", blend=["share", 0]))
    equal(found, by_stock(server, (cat, 0.5), (walk, 1.5)))


def test_three_sides_each_with_curves_of_its_own(server: ComfyServer, files: tuple[str, str, str]) -> None:
    """One node behind the other: at each noise level the sum of the files by hand."""
    cat, walk, hat = files
    nodes = {
        "two": blend_two(cat, walk, preset="movement first", identity_early=0.2),
        "three": blend_two(hat, "none", ["two", 0], preset="identity late", identity_strength=0.5),
    }
    found = ours(server, **nodes)
    weight = 0.5 * (1.5 - NOISY), 0.5 * (1.5 - CLEANER)
    equal(found[:1], by_stock(server, (cat, 0.2), (walk, 1.2), (hat, weight[0]))[:1])
    equal(found[1:], by_stock(server, (cat, 1.0), (hat, weight[1]))[1:])


def run_node(server: ComfyServer, settings: dict, **nodes: dict) -> Run:
    graph = {"model": graphs.load_model("wan"), "two": settings} | nodes
    return server.run(graph | {"kept": node("DualRealSavePair", pair=["two", 2], filename_prefix="two", consent="")})


def test_it_says_what_was_read_and_reads_it_once(server: ComfyServer, models: Path, files: tuple[str, str, str]) -> None:
    """The file stays as it was read while only strengths change, as taking its content away behind its stamp shows."""
    walk = files[1]
    cat = write(models, "cat once.safetensors", 4, "sks cat")
    run = run_node(server, blend_two(cat, walk))
    said = run.text("two")
    assert "Identity: cat once.safetensors, 4 layers, norm " in said and "; trigger words: sks cat." in said and "walk.safetensors" in said
    assert [line.partition(":")[0] for line in said.splitlines()[:2]] == ["Identity", "Motion"], "what a small node shows of its text"
    assert run.files("two"), "norms by depth are not shown"
    path = models / "loras" / cat
    stamp, size = path.stat(), path.stat().st_size
    path.write_bytes(bytes(size))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "sks cat" in run_node(server, blend_two(cat, walk, identity_strength=0.7, preset="movement first")).text("two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    with pytest.raises(RunFailed, match=r"once\.safetensors"):
        run_node(server, blend_two(cat, walk, identity_strength=0.8))


def test_choices_that_may_not_be_meant_are_named(server: ComfyServer, files: tuple[str, str, str]) -> None:
    cat, walk, _ = files
    share = node("DualRealFixedBlend", identity_share=0.25)
    wired = run_node(server, blend_two(cat, walk, preset="movement first", blend=["share", 0]), share=share)
    assert "The wired blend decides: preset and identity_early do nothing." in wired.text("two")
    alone = "The preset 'movement first' weighs the one LoRA too: with 'even' it acts as by Load LoRA."
    assert alone in run_node(server, blend_two(cat, "none", preset="movement first")).text("two")
    for settings in (blend_two(cat, "none"), blend_two(cat, walk, preset="movement first")):
        assert alone not in run_node(server, settings).text("two")
    assert f"Both sides are {cat}, so it acts twice" in run_node(server, blend_two(cat, cat)).text("two")


def test_files_that_are_wired_are_known_again(server: ComfyServer, files: tuple[str, str, str]) -> None:
    """ComfyUI asks for a fingerprint before their names are known; one that fails would sample the same graph anew each time."""
    cat, walk, _ = files
    nodes = {f"{role} of": node("BenchText", text=file) for role, file in (("identity", cat), ("motion", walk))}
    single = node("DualRealLoadIdentityLora", model=["model", 0], lora=["identity of", 0])
    both = node(
        "DualRealLoadTwoExpertLoras", model_high=["model", 0], model_low=["model", 0], role="motion", lora=["motion of", 0],
        partner=["identity of", 0],
    )  # fmt: skip
    shown = {f"shown {key}": node("DualRealSavePair", pair=[key, 0], filename_prefix="wired", consent="") for key in ("single", "both")}
    settings = blend_two(["identity of", 0], ["motion of", 0])
    asked = {"two", "single", "both"}
    first = run_node(server, settings, **nodes, single=single, both=both, **shown)
    again = run_node(server, settings, **nodes, single=single, both=both, **shown)
    assert asked <= set(first.executed_nodes()) and not asked & set(again.executed_nodes())


def test_a_lora_of_one_model_on_two_experts_is_said_to_need_a_choice(server: ComfyServer, files: tuple[str, str, str]) -> None:
    cat, walk, _ = files
    given = {"low_noise_model": ["model", 0], "motion_partner": "same file"}
    for partner, said in (
        ("found by name", f"No partner of {cat} was found .* Choose it as identity_partner, 'same file' where this one is for both"),
        ("none", "choose 'same file' as identity_partner to have it on both"),
    ):
        with pytest.raises(RunFailed, match=said):
            run_node(server, blend_two(cat, walk, identity_partner=partner, **given))
    text = run_node(server, blend_two(cat, walk, identity_partner="same file", **given)).text("two")
    assert "model and low_noise_model are the same MODEL" in text and "model_high" not in text


def test_a_saved_pair_acts_as_the_node(server: ComfyServer, models: Path, files: tuple[str, str, str]) -> None:
    cat, walk, _ = files
    run = run_node(server, blend_two(cat, walk, identity_strength=0.3))
    name = run.text("kept").removeprefix("Saved as ").removesuffix(" in models/dualreal.")
    settings = {"identity_strength": 1.0, "motion_strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "negative": "adapted"}
    applied = node("DualRealApplyStageBlender", model=["model", 0], pair=["loaded", 0], **settings)
    equal(ours(server, loaded=node("DualRealLoadPair", name=name), applied=applied), by_stock(server, (cat, 1.0), (walk, 1.0)))
    shutil.copyfile(models / "dualreal" / name, models / "loras" / "a pair.safetensors")
    with pytest.raises(RunFailed, match=r"a pair\.safetensors"):
        run_node(server, blend_two("a pair.safetensors", walk))


def test_each_expert_gets_its_own_files(server: ComfyServer, models: Path) -> None:
    folder = models / "diffusion_models"
    for file in (HIGH, LOW):
        shutil.copyfile(folder / ARCHITECTURES["wan"].checkpoint, folder / file)
    cats = [write(models, f"tom_{name}_noise.safetensors", seed) for name, seed in (("high", 11), ("low", 12))]
    walk = write(models, "stroll.safetensors", 13)
    two_models = {key: node("UNETLoader", unet_name=file, weight_dtype="default") for key, file in (("high", HIGH), ("low", LOW))}
    graph = graphs.text_to_latent("wan") | two_models
    graph["two"] = blend_two(cats[0], walk, ["high", 0], low_noise_model=["low", 0], motion_partner="same file")
    for index, (key, sigmas) in enumerate({"high": [0.95, 0.9], "low": [0.6, 0.2]}.items()):
        loaders, link = stock((cats[index], 1.0), (walk, 1.0))
        loaders["stock-0"]["inputs"]["model"] = [key, 0]
        equal(on_model(server, graph, ["two", index], sigmas), on_model(server, graph | loaders, link, sigmas))


def on_model(server: ComfyServer, graph: Graph, model: list, sigmas: list[float]) -> torch.Tensor:
    run = server.run(graph | graphs.raw_predictions(model, sigmas) | {"save": graphs.save(["sample", 0])})
    return server.tensors(run)["0.samples"]
