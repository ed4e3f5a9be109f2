"""One run in one sampler, in several, and on the two experts of a model: the same weights, the same latent, the same Blend Map."""

from __future__ import annotations

import json

import graphs
import pytest
import torch
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, Link, node
from test_blending import CFG, NAMES, OTHERS_THAN_COGVIDEOX, apply, pair_of, stem

STEPS = 4
STAGES = [0.0, 0.25, 0.5, 0.75]


def blended(name: str = "wan", preset: str = "identity late") -> Graph:
    """A model with a pair whose shares change over denoising."""
    return stem(name) | {
        "pair": pair_of(["model", 0]),
        "plan": node("DualRealScheduleBlend", preset=preset),
        "blended": apply(["model", 0], ["pair", 0], blend=["plan", 0]),
    }


def shown(key: str, sample: str, model: Link = ("blended", 0), **others: Link) -> Graph:
    """The latent of node `sample` saved by node `save-KEY`, and its Blend Map shown by node `show-KEY`."""
    return {
        f"map-{key}": node("DualRealBlendMap", model=list(model), latent=[sample, 0], **others),
        f"show-{key}": node("PreviewAny", source=[f"map-{key}", 1]),
        f"save-{key}": graphs.save([sample, 0]),
    }


def stretch(start: int, end: int, latent: str = "latent", model: str = "blended", **settings: object) -> dict:
    """Steps `start` to `end` of a run of `STEPS`, as two KSamplerAdvanced are wired in everybody's graphs for two experts."""
    usual = {"cfg": CFG, "noise_seed": 1, "steps": STEPS, "sampler_name": "euler", "scheduler": "simple"}
    return node(
        "KSamplerAdvanced", model=[model, 0], positive=["pos", 0], negative=["neg", 0], latent_image=[latent, 0],
        add_noise="disable" if start else "enable", start_at_step=start, end_at_step=end,
        return_with_leftover_noise="enable" if end < STEPS else "disable", **{**usual, **settings},
    )  # fmt: skip


def custom(name: str, *cuts: int) -> Graph:
    """A run by SamplerCustom, its sigmas split at steps; the last sampler is `custom-N`."""
    graph = {
        "how": node("VOIDSampler") if name == "cogvideox" else node("KSamplerSelect", sampler_name="euler"),
        "split--1": node("BasicScheduler", model=["blended", 0], scheduler="simple", steps=STEPS, denoise=1.0),
    }
    sigmas, before, latent = ["split--1", 0], 0, "latent"
    for index, cut in enumerate([*cuts, STEPS]):
        if cut < STEPS:
            graph[f"split-{index}"] = node("SplitSigmas", sigmas=sigmas, step=cut - before)
        own, sigmas, before = [f"split-{index}", 0] if cut < STEPS else sigmas, [f"split-{index}", 1], cut
        graph[f"custom-{index}"] = node(
            "SamplerCustom", model=["blended", 0], add_noise=index == 0, noise_seed=1, cfg=CFG, positive=["pos", 0], negative=["neg", 0],
            sampler=["how", 0], sigmas=own, latent_image=[latent, 0],
        )  # fmt: skip
        latent = f"custom-{index}"
    return graph


def maps(server: ComfyServer, graph: Graph, *keys: str) -> list[dict]:
    run = server.run(graph)
    return [json.loads(run.text(f"show-{key}")) for key in keys]


@pytest.mark.parametrize("cuts", [(2,), (1, 3)], ids=["two samplers", "three samplers"])
@pytest.mark.parametrize("name", NAMES)
def test_samplers_in_a_row_are_one_sampler(server: ComfyServer, name: str, cuts: tuple[int, ...]) -> None:
    """The latent to rounding, as noise is taken off and put on again in between, and the map to its last digit."""
    graph = blended(name) | custom(name, *cuts) | graphs.sampling(name, ["blended", 0], steps=STEPS)
    run = server.run(graphs.afresh(graph | shown("whole", "sample") | shown("parts", f"custom-{len(cuts)}"), "latent"))
    one, several = (json.loads(run.text(f"show-{key}")) for key in ("whole", "parts"))
    assert one == several and one["stages"] == pytest.approx(STAGES, abs=1e-3)
    if name != "cogvideox":  # its only sampler begins with its noise whatever latent it is given
        whole, parts = (server.tensors(run, f"save-{key}")["0.samples"] for key in ("whole", "parts"))
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "heun", "uni_pc"])
def test_two_experts_are_one_sampler(server: ComfyServer, sampler: str) -> None:
    """Two MODELs, here of equal weights, each with the pair: the map of both is the map of one."""
    settings = {"sampler_name": sampler}
    graph = blended() | {
        "low": graphs.load_model("wan"),
        "low-blended": apply(["low", 0], ["pair", 0], blend=["plan", 0]),
        "whole": stretch(0, STEPS, **settings),
        "high-half": stretch(0, 2, **settings),
        "low-half": stretch(2, STEPS, "high-half", "low-blended", **settings),
    }
    graph |= shown("whole", "whole") | shown("experts", "low-half", low_noise_model=["low-blended", 0])
    graph |= shown("swapped", "low-half", ("low-blended", 0), low_noise_model=["blended", 0])
    graph |= shown("low", "low-half", ("low-blended", 0))
    run = server.run(graphs.afresh(graph, "latent"))
    whole, experts, swapped, low = (json.loads(run.text(f"show-{key}")) for key in ("whole", "experts", "swapped", "low"))
    assert whole == experts == swapped
    assert low["stages"] == whole["stages"][2:]
    if sampler == "euler":  # the others keep what they need of earlier steps
        latents = [server.tensors(run, f"save-{key}")["0.samples"] for key in ("whole", "experts")]
        torch.testing.assert_close(*latents, rtol=1e-4, atol=1e-4)


def test_a_first_half_from_the_cache_is_shown_too(server: ComfyServer) -> None:
    graph = graphs.afresh(blended() | {"first": stretch(0, 2), "second": stretch(2, STEPS, "first")} | shown("parts", "second"), "latent")
    before = server.run(graph)
    graph["second"]["inputs"]["cfg"] = 1.0
    again = server.run(graph)
    assert "first" in before.executed_nodes() and "first" not in again.executed_nodes() and "second" in again.executed_nodes()
    for run in (before, again):
        assert json.loads(run.text("show-parts"))["stages"] == pytest.approx(STAGES, abs=1e-3)


def test_each_map_is_of_the_latent_that_it_is_given(server: ComfyServer) -> None:
    """One MODEL sampled three times in a prompt: in two halves, whole, and a second pass over the finished latent."""
    second_pass = {"sampler_name": "euler", "scheduler": "simple", "steps": 2, "denoise": 0.5, "seed": 2, "cfg": CFG}
    graph = blended() | {
        "first": stretch(0, 2, noise_seed=5),
        "second": stretch(2, STEPS, "first", noise_seed=5),
        "whole": stretch(0, 3, noise_seed=7, steps=3),
        "pass": node(
            "KSampler", model=["blended", 0], positive=["pos", 0], negative=["neg", 0], latent_image=["second", 0], **second_pass
        ),
    }
    for key in ("second", "whole", "pass"):
        graph |= shown(key, key)
    halves, whole, over = maps(server, graphs.afresh(graph, "latent"), "second", "whole", "pass")
    assert halves["stages"] == pytest.approx(STAGES, abs=1e-3)
    assert whole["stages"] == pytest.approx([0.0, 1 / 3, 2 / 3], abs=1e-3)
    assert over["stages"] == pytest.approx([0.5, 0.75], abs=1e-3)
    assert [row[0] for row in over["identity"]] == pytest.approx([1.0, 1.25], abs=1e-3)


def test_a_latent_changed_between_the_halves_is_of_one_run(server: ComfyServer) -> None:
    graph = blended() | {
        "first": stretch(0, 2),
        "changed": node("LatentMultiply", samples=["first", 0], multiplier=1.01),
        "second": stretch(2, STEPS, "changed"),
    }
    (shown_map,) = maps(server, graphs.afresh(graph | shown("parts", "second"), "latent"), "parts")
    assert shown_map["stages"] == pytest.approx(STAGES, abs=1e-3)


@pytest.mark.parametrize("scheduler", ["simple", "beta", "karras"])
def test_a_sigma_has_one_place_whatever_the_schedule(server: ComfyServer, scheduler: str) -> None:
    """With any number and spacing of steps."""
    settings = {"steps": 7, "scheduler": scheduler}
    graph = blended() | {"whole": stretch(0, 7, **settings), "first": stretch(0, 3, **settings)}
    graph |= {"second": stretch(3, 7, "first", **settings)} | shown("whole", "whole") | shown("parts", "second")
    whole, parts = maps(server, graphs.afresh(graph, "latent"), "whole", "parts")
    assert whole == parts and len(whole["stages"]) == 7
    assert [row[0] for row in whole["identity"]] == pytest.approx([0.5 + stage for stage in whole["stages"]], abs=1e-3)


@pytest.mark.parametrize("shift", [None, 12.0])
@pytest.mark.parametrize("name", NAMES)
def test_sampling_places_a_sigma_where_training_does(server: ComfyServer, name: str, shift: float | None) -> None:
    graph = blended(name) | {"positions": node("BenchPositions", model=["blended", 0])}
    if shift is not None:
        if name not in OTHERS_THAN_COGVIDEOX:
            pytest.skip("a discrete model has no shift")
        graph["shifted"] = node("ModelSamplingSD3", model=["blended", 0], shift=shift)
        graph["positions"]["inputs"]["model"] = ["shifted", 0]
    assert json.loads(server.run(graph).text("positions")) < 1e-4


def test_maps_that_cannot_be_drawn_are_refused(server: ComfyServer) -> None:
    graph = blended() | {"sample": stretch(0, STEPS)} | shown("one", "sample", low_noise_model=["model", 0])
    with pytest.raises(RunFailed, match="carries no pair"):
        server.run(graph)
    graph |= {"few": pair_of(["model", 0]), "other": apply(["model", 0], ["few", 0])}
    graph["few"]["inputs"]["num_groups"] = 2
    graph["map-one"]["inputs"]["low_noise_model"] = ["other", 0]
    with pytest.raises(RunFailed, match="groups of blocks"):
        server.run(graph)
