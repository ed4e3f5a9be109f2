"""A pair beside what others do to a MODEL: it stops where it would be left out, and acts the same on several devices."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from architectures import ARCHITECTURES
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_blending import apply, pair_of, samples, stem
from test_training import training

BEFORE, AFTER = "before the pair", "behind the pair"


def with_neighbour(kind: str, place: str = AFTER, **settings: object) -> Graph:
    """Nodes `pair`, and `all` with the pair and a neighbour."""
    first, second = ("neighbour", "blended") if place == BEFORE else ("blended", "neighbour")
    nodes = {
        "blended": apply(["model", 0], ["pair", 0], **settings),
        "neighbour": node("BenchNeighbour", model=["model", 0], kind=kind, number=1),
    }
    nodes[second]["inputs"]["model"] = [first, 0]
    return {"pair": pair_of(["model", 0]), first: nodes[first], "all": nodes[second]}


STOPS = {
    "fuse": r"acts on blocks\.1\.self_attn\.q, which the MODEL computes without calling it.* Take away the node",
    "replace_block": r"acts on blocks\.1\.self_attn\.q \(and 5 more\).*blocks\.1 is replaced by ignore_block of .*Take away the node",
    "halve_batch": r"blocks\.1\.self_attn\.q was called with 1 rows, and the batch has 2.*without that patch",
    "run_alone": r"The pair was left out of this sampling.*take away the node",
}


@pytest.mark.parametrize("place", [BEFORE, AFTER])
@pytest.mark.parametrize("kind", list(STOPS))
def test_a_sampling_that_would_leave_the_pair_out_stops(server: ComfyServer, kind: str, place: str) -> None:
    graph = stem("wan") | with_neighbour(kind, place) | graphs.sampling("wan", ["all", 0]) | {"save": graphs.save(["sample", 0])}
    with pytest.raises(RunFailed, match=STOPS[kind]) as failed:
        server.run(graph)
    assert failed.value.node_id == "sample"
    weak = with_neighbour(kind, place, identity_strength=0.0, motion_strength=0.0)
    assert server.tensors(server.run(graph | weak))["0.samples"].isfinite().all(), "a pair without strength stops nothing"


@pytest.mark.parametrize("kind", ["fuse", "replace_block"])
def test_training_on_a_model_that_leaves_a_pair_out_stops(server: ComfyServer, kind: str) -> None:
    """The one in training, and one that the MODEL carries."""
    graph = training("wan", f"left out {kind}") | with_neighbour(kind)
    graph["alone"] = node("BenchNeighbour", model=["model", 0], kind=kind, number=1)
    for model in ("alone", "all"):
        graph["train"]["inputs"]["model"] = [model, 0]
        with pytest.raises(RunFailed, match=r"acts on blocks\.1\.self_attn\.q") as failed:
            server.run(graph)
        assert failed.value.node_id == "train"


@pytest.mark.parametrize("negative", ["plain base", "adapted"])
def test_guidance_by_skipped_layers_stops_nothing(server: ComfyServer, negative: str) -> None:
    """Whether its extra calls come before the plain ones or after them, and whichever prompt they are of."""
    layers = {"double_layers": "0, 1, 2", "single_layers": "", "start_percent": 0.0, "end_percent": 1.0}
    extra = with_neighbour("skip_first", negative=negative) | {
        "simple": node("SkipLayerGuidanceDiTSimple", model=["blended", 0], **layers),
        "full": node("SkipLayerGuidanceDiT", model=["blended", 0], scale=3.0, rescaling_scale=0.0, **layers),
    }
    found = samples(server, "wan", extra, {key: [key, 0] for key in ("blended", "all", "simple", "full")})
    assert found["all"].equal(found["blended"]), "its extra calls change nothing"
    assert all(latent.isfinite().all() for latent in found.values())


@pytest.mark.parametrize("order", ["pair first", "devices first"])
def test_two_devices_give_what_one_gives(server: ComfyServer, order: str) -> None:
    """Each with a DiT, a thread and a pair of its own; the prompts are of two lengths, so that one device also calls twice."""
    graph = stem("wan") | {"neg": graphs.conditioning("wan", seed=12, tokens=11), "pair": pair_of(["model", 0])}
    graph |= {"blended": apply(["model", 0], ["pair", 0], negative="adapted"), "probe": node("BenchProbe", model=["blended", 0])}
    one = graph | graphs.sampling("wan", ["blended", 0], steps=3) | {"save": graphs.save(["sample", 0])}
    expected = server.tensors(server.run(one))["0.samples"]
    if order == "pair first":
        graph["devices"] = node("BenchSecondDevice", model=["probe", 0])
    else:
        graph["devices"] = node("BenchSecondDevice", model=["model", 0])
        graph["blended"]["inputs"]["model"] = ["devices", 0]
    last = "devices" if order == "pair first" else "probe"
    after = {"save": graphs.save(["sample", 0]), "report": graphs.report([last, 0], after=["sample", 0])}
    after |= {"map": node("DualRealBlendMap", model=[last, 0], latent=["sample", 0]), "show": node("PreviewAny", source=["map", 1])}
    after["copies"] = node("BenchCopies", model=[last, 0], after=["sample", 0])
    run = server.run(graphs.afresh(graph | graphs.sampling("wan", [last, 0], steps=3) | after, "probe"))
    assert server.tensors(run)["0.samples"].equal(expected)
    calls = run.report("report")["calls"]
    assert len(calls) == 6 and len({call["dit_id"] for call in calls}) == len({call["thread"] for call in calls}) == 2
    assert json.loads(run.text("copies")) == {"pairs": 2, "shared": 0, "own pair": True, "own blend": True, "equal": True}
    assert len(json.loads(run.text("show"))["stages"]) == 3, "the weights of the prompt, each step once"
    again = server.run(graphs.afresh(graph | graphs.sampling("wan", [last, 0], steps=3) | {"save": after["save"]}, "latent"))
    assert server.tensors(again)["0.samples"].equal(expected)


def test_training_on_a_model_for_two_devices_is_that_on_one(server: ComfyServer) -> None:
    losses = []
    for run_name in ("one device", "two devices"):
        graph = training("wan", run_name) | {"pair": pair_of(["model", 0]), "blended": apply(["model", 0], ["pair", 0])}
        graph["devices"] = node("BenchSecondDevice", model=["blended", 0])
        graph["train"]["inputs"]["model"] = ["devices" if run_name == "two devices" else "blended", 0]
        losses.append(server.run(graph).text("losses"))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("cache", ["EasyCache", "LazyCache"])
def test_training_does_without_a_cache_and_says_so(server: ComfyServer, cache: str) -> None:
    """It is the same training; and sampling with the same MODEL afterwards is cached as before."""
    graph = training("wan", f"cached {cache}")
    plain = server.run(training("wan", f"uncached {cache}")).text("losses")
    settings = {"reuse_threshold": 0.2, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
    graph["cached"] = node(cache, model=["model", 0], **settings)
    graph["train"]["inputs"] |= {"model": ["cached", 0], "preview_conditioning": ["clip_texts", 0], "vae": ["vae", 0]}
    graph["vae"] = node("VAELoader", vae_name=graphs.WAN_VAE)
    run = server.run(graph)
    assert run.text("losses") == plain
    assert f"Trained without {cache}:" in run.text("train") and f"Trained without {cache}:" in server.log()


def test_training_gives_along_what_sampling_gives(server: ComfyServer) -> None:
    """Also in evaluations and previews."""
    graph = training("wan", "read", evaluate_every=2)
    graph["reader"] = node("BenchNeighbour", model=["model", 0], kind="need_options", number=0)
    graph["vae"] = node("VAELoader", vae_name=graphs.WAN_VAE)
    graph["train"]["inputs"] |= {"model": ["reader", 0], "preview_conditioning": ["clip_texts", 0], "vae": ["vae", 0]}
    assert server.run(graph).text("losses") == server.run(training("wan", "unread", evaluate_every=2)).text("losses")


def test_a_step_distilled_model_is_trained_and_told_the_next_sigma(server: ComfyServer, models: Path) -> None:
    """It embeds a second sigma: in training that of each sample itself, in a preview that of the next step."""
    folder = models / "diffusion_models"
    weights = safetensors.torch.load_file(folder / ARCHITECTURES["hunyuan"].checkpoint)
    generator = torch.Generator().manual_seed(3)
    for key in [key for key in weights if key.startswith("time_in.")]:
        weights[key.replace("time_in.", "time_r_in.")] = torch.randn(weights[key].shape, generator=generator) / 16
    safetensors.torch.save_file(weights, folder / "step distilled.safetensors")
    distilled = node("UNETLoader", unet_name="step distilled.safetensors", weight_dtype="default")
    check = {
        "model": distilled,
        "latent": graphs.latents("hunyuan", seed=1),
        "text": graphs.conditioning("hunyuan", seed=2),
        "check": node("BenchBatchedPredictions", model=["model", 0], latent=["latent", 0], conditioning=["text", 0]),
    }
    facts = json.loads(server.run(check).text("check"))
    assert facts["difference"] < 1e-4 < facts["distance"] and facts["next"], facts
    run = server.run(training("hunyuan", "distilled") | {"model": distilled})
    assert run.text("losses") != server.run(training("hunyuan", "undistilled")).text("losses")
