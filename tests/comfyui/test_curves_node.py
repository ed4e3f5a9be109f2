"""Blend Curves on a real ComfyUI: text in, weights by it, wrong text refused, and the page told of what was used."""

from __future__ import annotations

import json

import graphs
import pytest
import torch
from comfy_run import PromptRejected
from comfy_server import ComfyServer
from graphs import Graph, node

from dualreal_core.method.curves import curve_at, parse_curves
from dualreal_core.method.presets import PRESETS, movement_first

EVENT = "dualreal.blend_used"
DRAWN = "identity sigma 1:0.4 0.8:0.4 0.6:1.4 0:1.4\nmotion depth 0:0.5 1:1.5"


def blended(curves: object, steps: int = 4, strength: float = 1.0, key: str = "curves") -> Graph:
    """A tiny Wan with a pair of three groups that goes by curves, and its Blend Map."""
    graph = graphs.through(graphs.text_to_latent("wan", steps=steps), "apply", node(
        "DualRealApplyStageBlender", pair=["pair", 0], blend=[key, 0], identity_strength=strength, motion_strength=1.0, start_percent=0.0,
        end_percent=1.0, negative="plain base",
    ))  # fmt: skip
    return graph | {
        key: node("DualRealBlendCurves", curves=curves),
        "pair": node("BenchPair", model=["model", 0], kind="lora", spread=0.05, seed=1, has_controller=False, num_groups=3),
        "map": node("DualRealBlendMap", model=["apply", 0], latent=["sample", 0]),
        "shown": node("PreviewAny", source=["map", 1]),
    }


def used(server: ComfyServer, graph: Graph) -> tuple[list[dict], dict]:
    """What the page was told, and the data of Blend Map."""
    run = server.run(graphs.afresh(graph, "latent"))
    return [event.payload for event in run.events if event.type == EVENT], json.loads(run.outputs["shown"]["text"][0])


def test_weights_follow_the_text_and_the_page_is_told(server: ComfyServer) -> None:
    graph = blended(DRAWN, strength=0.5)
    (told,), shown = used(server, graph)
    assert told["node"] == "curves" and told["prompt_id"]
    levels, curves = torch.tensor(told["noise_levels"]), parse_curves(DRAWN)
    assert levels[0] == 1 and (levels.diff() < 0).all()
    depths = torch.linspace(0, 1, 3)
    identity = 0.5 * curve_at(curves.identity.sigma, levels)[:, None].expand(-1, 3)
    motion = curve_at(curves.motion.depth, depths).expand(len(levels), 3)
    for role, weights in (("identity", identity), ("motion", motion)):
        torch.testing.assert_close(torch.tensor(told[role]), weights, atol=2e-4, rtol=0)
        torch.testing.assert_close(torch.tensor(shown[role]), weights, atol=2e-4, rtol=0)  # an even weight is 1 in these pairs
    assert told["stages"] == shown["stages"]


def test_two_samplers_of_one_run_tell_of_their_parts(server: ComfyServer) -> None:
    graph = blended(DRAWN)
    common = {**graph["sample"]["inputs"], "noise_seed": 1, "start_at_step": 0, "end_at_step": 2}
    common = {key: value for key, value in common.items() if key not in ("seed", "denoise")}
    graph["first"] = node("KSamplerAdvanced", **common, add_noise="enable", return_with_leftover_noise="enable")
    rest = {**common, "start_at_step": 2, "end_at_step": 4, "latent_image": ["first", 0]}
    graph["sample"] = node("KSamplerAdvanced", **rest, add_noise="disable", return_with_leftover_noise="disable")
    (first, second), _ = used(server, graph)
    assert first["prompt_id"] == second["prompt_id"] and len(first["stages"]) == len(second["stages"]) == 2
    assert second["noise_levels"][0] < first["noise_levels"][-1]


def test_each_node_of_a_text_has_an_id_of_its_own(server: ComfyServer) -> None:
    """The same text in another node, or in a graph that was queued before, is not told of under the other's id."""
    for key in ("curves", "other", "12:5"):
        (told,), _ = used(server, blended(DRAWN, key=key))
        assert told["node"] == key


def test_other_blends_tell_nothing(server: ComfyServer) -> None:
    graph = blended("")
    graph["curves"] = node("DualRealFixedBlend", identity_share=0.5)
    told, shown = used(server, graph)
    assert told == [] and all(row == [1.0] * 3 for row in shown["identity"])


def test_a_run_of_no_page_is_as_good(server: ComfyServer) -> None:
    """Scripts may queue without a client, or with one that has gone."""
    for client in (None, "nobody"):
        graph = graphs.afresh(blended(DRAWN), "latent")
        prompt_id = json.loads(server.post("/prompt", {"prompt": graph, **({"client_id": client} if client else {})}))["prompt_id"]
        while not (history := server.get(f"/history/{prompt_id}")):
            pass
        assert history[prompt_id]["status"]["status_str"] == "success"
    assert server.run(graphs.afresh(graph, "latent")).outputs


@pytest.mark.parametrize(
    ("text", "said"),
    [("identity sigma", "no line of them"), ("motion depth 0:5", "weights from 0 to 4"), ("identity sigma 1:1 1:2", "two points at 1")],
)
def test_wrong_text_is_refused_before_a_run(server: ComfyServer, text: str, said: str) -> None:
    with pytest.raises(PromptRejected) as refused:
        server.queue(blended(text))
    assert said in json.dumps(refused.value.args, default=str) or said in str(refused.value)


def test_wired_text_is_read_too(server: ComfyServer) -> None:
    graph = blended(["text", 0]) | {"text": node("PrimitiveStringMultiline", value=DRAWN)}
    _, shown = used(server, graph)
    (_, plain) = used(server, blended(DRAWN))
    assert shown == plain


def test_the_page_gets_the_cores_presets(server: ComfyServer) -> None:
    answer = server.get("/dualreal/presets")
    assert {one["name"]: parse_curves(one["curves"]) for one in answer["presets"]} == PRESETS
    assert [parse_curves(end["curves"]) for end in answer["dial"]["ends"]] == [movement_first(0.0), movement_first(0.8)]
    assert parse_curves(dict(server.object_info()["DualRealBlendCurves"]["input"]["required"])["curves"][1]["default"]) == movement_first()
