"""A VAE or an encoder that is not the model's: the trainer names what is wired, what the model needs, and where to change it."""

from __future__ import annotations

import graphs
import pytest
from architectures import ARCHITECTURES, WAN_VAE
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_training import training

NAMES = list(ARCHITECTURES)
MODELS = {"wan": "Wan", "cogvideox": "CogVideoX", "ltxv": "LTX-Video", "hunyuan": "HunyuanVideo"}
CHANNELS = [1, 4, 16, 48, 128]


def sentence(server: ComfyServer, graph: Graph, failing: str = "train") -> str:
    with pytest.raises(RunFailed) as failed:
        server.run(graph)
    assert failed.value.node_id == failing and "\n" not in failed.value.message
    return failed.value.message


def changed(name: str, part: str, **inputs: object) -> Graph:
    graph = training(name, f"wrong {part}", steps=1)
    graph[part]["inputs"] |= inputs
    return graph


@pytest.mark.parametrize("part", ["photos", "clips"])
@pytest.mark.parametrize("name", NAMES)
def test_latents_of_another_vae(server: ComfyServer, name: str, part: str) -> None:
    wanted, role = ARCHITECTURES[name].latent_shape[0], {"photos": "identity", "clips": "motion"}[part]
    for channels in CHANNELS:
        if channels == wanted:
            continue
        message = sentence(server, changed(name, part, channels=channels))
        assert f"The {role} latents have {channels} channels" in message
        assert f"this {MODELS[name]} model takes {wanted}" in message
        assert f"the node that makes {role}_latents ({role.title()} Dataset)" in message
    assert "Wan 2.2 5B" in sentence(server, changed(name, part, channels=48))


@pytest.mark.parametrize("part", ["photo_texts", "clip_texts"])
@pytest.mark.parametrize("name", NAMES)
def test_text_of_another_encoder(server: ComfyServer, name: str, part: str) -> None:
    message = sentence(server, changed(name, part, text_dim=768))
    given = {"photo_texts": "identity", "clip_texts": "motion"}[part]
    assert f"{given}_conditioning is 768 wide (as of CLIP-L)" in message
    assert f"this {MODELS[name]} model reads text of width 4096" in message and "CLIP" in message.partition("wire")[2]


@pytest.mark.parametrize(("pooled_dim", "words"), [(0, "has no pooled output"), (1280, "has a pooled output of width 1280")])
def test_hunyuan_needs_a_pooled_text(server: ComfyServer, pooled_dim: int, words: str) -> None:
    message = sentence(server, changed("hunyuan", "clip_texts", pooled_dim=pooled_dim))
    assert f"motion_conditioning {words}, and this HunyuanVideo model needs one of width 768" in message
    assert "DualCLIPLoader of type 'hunyuan_video'" in message


def test_ltx_needs_an_attention_mask(server: ComfyServer) -> None:
    message = sentence(server, changed("ltxv", "photo_texts", has_mask=False))
    assert "identity_conditioning has no attention mask, without which LTX-Video cannot run" in message and "'ltxv'" in message


@pytest.mark.parametrize("name", NAMES)
def test_what_previews_sample_is_checked_too(server: ComfyServer, name: str) -> None:
    graph = training(name, "wrong preview") | {"vae": node("VAELoader", vae_name=WAN_VAE), "prompt": graphs.conditioning(name, seed=1)}
    graph["prompt"]["inputs"]["text_dim"] = 768
    graph["train"]["inputs"] |= {"preview_conditioning": ["prompt", 0], "vae": ["vae", 0]}
    message = sentence(server, graph)
    if name == "ltxv":
        assert "The VAE of the preview has 16 channels" in message and "takes 128 (as of LTX-Video or LTX-2): wire into vae" in message
    else:
        assert "preview_conditioning is 768 wide" in message


def test_references_of_two_encoders(server: ComfyServer) -> None:
    graph = training("wan", "wrong references", adapter="bottleneck")
    graph |= {name: node("BenchReferences", embedding_dim=dim, seed=1, count=1) for name, dim in (("one", 6), ("two", 7))}
    graph["both"] = node("CreateList", **{"inputs.input0": ["one", 0], "inputs.input1": ["two", 0]})
    graph["train"]["inputs"]["motion_references"] = ["both", 0]
    assert "motion_references: number 1 is 6 wide and number 2 7, so two encoders made them" in sentence(server, graph)
