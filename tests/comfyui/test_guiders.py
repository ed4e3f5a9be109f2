"""The pair under guiders and patches other than plain guidance, and behind nodes that change the schedule."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from comfy_server import ComfyServer
from graphs import Graph, node
from test_blending import alone, apply, pair_of, samples, stem

SIGMAS = [0.9, 0.4]


def blended(**settings: object) -> Graph:
    return stem("wan") | {"pair": pair_of(["model", 0]), "blended": apply(["model", 0], ["pair", 0], **settings)}


def guided(server: ComfyServer, graph: Graph, guider: dict) -> torch.Tensor:
    """Predictions of a guider at `SIGMAS`, for the noise that `alone` has."""
    nodes = {
        "guider": guider,
        "noise": node("RandomNoise", noise_seed=1),
        "raw": node("BenchRawSampler"),
        "sigmas": node("ManualSigmas", sigmas=", ".join(map(str, SIGMAS))),
        "sample": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["raw", 0], sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
        "save": graphs.save(["sample", 0]),
    }  # fmt: skip
    return server.tensors(server.run(graph | nodes))["0.samples"]


@pytest.mark.parametrize("negative", ["plain base", "adapted"])
def test_of_two_prompts_and_a_negative_one_the_last_alone_is_unwanted(server: ComfyServer, negative: str) -> None:
    graph = blended(negative=negative) | {"second": graphs.conditioning("wan", seed=13)}
    guider = node(
        "DualCFGGuider", model=["blended", 0], cond1=["pos", 0], cond2=["second", 0], negative=["neg", 0], cfg_conds=3.0,
        cfg_cond2_negative=2.0, style="regular",
    )  # fmt: skip
    first, second = alone(server, graph, "blended", "pos"), alone(server, graph, "blended", "second")
    against = alone(server, graph, "model" if negative == "plain base" else "blended", "neg")
    expected = against + 2.0 * (second - against) + 3.0 * (first - second)
    torch.testing.assert_close(guided(server, graph, guider), expected, rtol=1e-3, atol=2e-3)


def test_a_model_for_the_negative_prompt_is_left_as_it_is(server: ComfyServer, models: Path) -> None:
    """Of whatever depth: ComfyUI calls it through the wrappers of the main one."""
    folder = models / "diffusion_models"
    weights = safetensors.torch.load_file(folder / "tiny_wan.safetensors")
    kept = {key: weight for key, weight in weights.items() if "blocks.2." not in key}
    safetensors.torch.save_file(kept, folder / "short wan.safetensors")
    graph = blended(negative="adapted") | {"short": node("UNETLoader", unet_name="short wan.safetensors", weight_dtype="default")}
    guider = node(
        "DualModelGuider", model=["blended", 0], model_negative=["short", 0], positive=["pos", 0], negative=["neg", 0], cfg=4.0
    )
    against = alone(server, graph, "short", "neg")
    expected = against + 4.0 * (alone(server, graph, "blended", "pos") - against)
    torch.testing.assert_close(guided(server, graph, guider), expected, rtol=1e-3, atol=2e-3)


def test_the_same_model_for_the_negative_prompt_is_guidance(server: ComfyServer) -> None:
    graph = blended()
    guider = node(
        "DualModelGuider", model=["blended", 0], model_negative=["model", 0], positive=["pos", 0], negative=["neg", 0], cfg=4.0
    )
    against = alone(server, graph, "model", "neg")
    expected = against + 4.0 * (alone(server, graph, "blended", "pos") - against)
    torch.testing.assert_close(guided(server, graph, guider), expected, rtol=1e-3, atol=2e-3)


def test_a_sampling_within_another_leaves_it_as_it_is(server: ComfyServer) -> None:
    """Of the same MODEL, before each of its steps; the map is of the outer one, which ends last."""
    graph = blended(end_percent=0.5) | graphs.raw_predictions(["blended", 0], SIGMAS) | {
        "map": node("DualRealBlendMap", model=["blended", 0], latent=["sample", 0]),
        "show": node("PreviewAny", source=["map", 1]),
        "save": graphs.save(["sample", 0]),
    }  # fmt: skip
    plain = server.run(graph)
    nested = node("BenchRawSampler", model=["blended", 0], positive=["pos", 0], negative=["neg", 0])
    around = server.run(graph | {"raw": nested})
    assert server.tensors(around)["0.samples"].equal(server.tensors(plain)["0.samples"])
    assert json.loads(around.text("show")) == json.loads(plain.text("show"))


def test_a_call_without_a_sampler_and_one_on_a_second_device(server: ComfyServer) -> None:
    graph = blended() | {"check": node("BenchStateless", model=["blended", 0], latent=["latents", 0], conditioning=["pos", 0])}
    graph["latents"] = graphs.latents("wan", seed=3)
    facts = json.loads(server.run(graph).text("check"))
    assert len(facts) == 6 and all(facts.values()), facts


def test_guidance_may_leave_out_the_first_layer(server: ComfyServer) -> None:
    graph = blended() | {
        "skip": node(
            "SkipLayerGuidanceDiT", model=["blended", 0], double_layers="0", single_layers="", scale=3.0, start_percent=0.0,
            end_percent=1.0, rescaling_scale=0.0,
        ),
    }  # fmt: skip
    found = samples(server, "wan", {key: graph[key] for key in ("pair", "blended", "skip")}, {"a": ["blended", 0], "b": ["skip", 0]})
    assert found["b"].isfinite().all() and not found["b"].equal(found["a"])


def test_a_shift_behind_the_pair_counts_as_one_before_it(server: ComfyServer) -> None:
    """Percents are those of the schedule that is sampled: here half of it still covers the second of two steps."""
    shift = {"shift": 1.5}
    extra = {
        "pair": pair_of(["model", 0]),
        "pair-first": apply(["model", 0], ["pair", 0], end_percent=0.5),
        "pair-shift": node("ModelSamplingSD3", model=["pair-first", 0], **shift),
        "shift-first": node("ModelSamplingSD3", model=["model", 0], **shift),
        "shift-pair": apply(["shift-first", 0], ["pair", 0], end_percent=0.5),
        "early": apply(["shift-first", 0], ["pair", 0], end_percent=0.3),
    }
    found = samples(server, "wan", extra, {key: [key, 0] for key in ("pair-shift", "shift-pair", "early")})
    assert found["pair-shift"].equal(found["shift-pair"]) and not found["pair-shift"].equal(found["early"])
