"""Prompt gates on a real ComfyUI: prompts that name neither side give the stock result bit for bit, others what the named sides do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from comfy_run import Run, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, Link, node
from test_blending import apply, pair_of
from test_training import embedded_training
from test_two_loras import HIGH, LOW, blend_two, write

IDENTITY, MOTION = "sks dog", "plays the violin"
PROMPTS = {
    "neither": "a red car drives through the rain",
    "identity": f"a {IDENTITY} on grass",
    "motion": f"a man {MOTION} at night",
    "both": f"a {IDENTITY} {MOTION} in a park",
}
MODEL = ("model", 0)
Branches = dict[str, tuple[Link, str]]
"""By name the MODEL that is sampled, and the prompt."""


def gate(pair: str = "pair", identity: str = IDENTITY, motion: str = MOTION) -> dict:
    return node("DualRealPromptGate", model=[*MODEL], clip=["clip", 0], pair=[pair, 0], identity_words=identity, motion_words=motion)


def encoded(prompt: str) -> dict:
    return node("CLIPTextEncode", clip=["clip", 0], text=prompt)


def base(batch: int = 1) -> Graph:
    clip = node("BenchWords", text_dim=4096, pooled_dim=0, has_mask=False)
    return {"model": graphs.load_model("wan"), "clip": clip, "latent": graphs.empty_latent("wan", batch), "neg": encoded("blurry")}


def branch(key: str, model: Link, prompt: str, cfg: float = 1.0) -> Graph:
    common = {"positive": [f"{key}-text", 0], "negative": ["neg", 0], "latent_image": ["latent", 0], "model": [*model]}
    schedule = {"seed": 1, "steps": 2, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "cfg": cfg}
    return {f"{key}-text": encoded(prompt), key: node("KSampler", **common, **schedule), f"{key}-save": graphs.save([key, 0])}


def sampled(server: ComfyServer, extra: Graph, branches: Branches, cfg: float = 1.0, batch: int = 1) -> tuple[dict[str, torch.Tensor], Run]:
    """The latent of each branch."""
    graph = base(batch) | extra
    for key, (model, prompt) in branches.items():
        graph |= branch(key, model, prompt, cfg)
    run = server.run(graph)
    return {key: server.tensors(run, f"{key}-save")["0.samples"] for key in branches}, run


def side_alone(role: str) -> dict:
    return apply([*MODEL], ["pair", 0], identity_strength=float(role == "identity"), motion_strength=float(role == "motion"))


GATED = {
    "pair": pair_of([*MODEL]), "gated": gate(), "on": apply([*MODEL], ["gated", 0]), "ungated": apply([*MODEL], ["pair", 0]),
}  # fmt: skip


def test_each_side_acts_where_the_prompt_names_it(server: ComfyServer) -> None:
    extra = {
        **GATED, "identity alone": side_alone("identity"), "motion alone": side_alone("motion"),
        "always": apply([*MODEL], ["gated", 0], follow_prompt=False),
        "map": node("DualRealBlendMap", model=["on", 0], latent=["neither", 0]),
    }  # fmt: skip
    expected = {"neither": "model", "identity": "identity alone", "motion": "motion alone", "both": "ungated"}
    branches = {key: (["on", 0], prompt) for key, prompt in PROMPTS.items()}
    branches |= {f"as {key}": ([expected[key], 0], prompt) for key, prompt in PROMPTS.items()}
    branches |= {"off": (["always", 0], PROMPTS["neither"]), "as off": (["ungated", 0], PROMPTS["neither"])}
    found, run = sampled(server, extra, branches)
    for key in (*PROMPTS, "off"):
        assert found[key].equal(found[f"as {key}"]), key
    assert not found["neither"].equal(found["off"]), "the pair does nothing"
    said = run.text("gated")
    assert "the identity acts only on prompts with 'sks dog'" in said and "'playing the violin'" in said
    assert "On wordings that it was not fitted to it is right about the identity in 9" in said or "identity in 100%" in said
    assert run.text("on").startswith("Prompt gate: ") and "always" not in run.outputs
    note = "The prompt names neither the identity ('sks dog') nor the motion ('plays the violin' or 'playing the violin')"
    assert note in run.text("map") and note in json.loads(json.dumps(run.outputs["map"]))["text"][0]
    log = server.log()
    assert log.count(note) == 1 and log.count("The prompt does not name the motion (") == 1, "once for each such sampling"


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_in_a_batch_and_beside_a_negative_prompt(server: ComfyServer, cfg: float) -> None:
    """The negative prompt names neither, whether the pair is kept out of it or not."""
    extra = {**GATED, "adapted": apply([*MODEL], ["gated", 0], negative="adapted")}
    branches = {"stock": (MODEL, PROMPTS["neither"]), "all": (["ungated", 0], PROMPTS["both"])}
    branches |= {f"{key} {name}": ([key, 0], PROMPTS[name]) for key in ("on", "adapted") for name in ("neither", "both")}
    found, _ = sampled(server, extra, branches, cfg, batch=2)
    for key in ("on", "adapted"):
        assert found[f"{key} neither"].equal(found["stock"]) and found[f"{key} both"].equal(found["all"]), key


def test_prompts_of_one_sampling_are_gated_apart(server: ComfyServer) -> None:
    """Two prompts over the whole video count half each: one that names neither side, one that names both."""
    extra = {**GATED, "plain": encoded(PROMPTS["neither"]), "naming": encoded(PROMPTS["both"])}
    extra["mixed"] = node("ConditioningCombine", conditioning_1=["plain", 0], conditioning_2=["naming", 0])
    first = {"steps": 1, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "cfg": 1.0, "seed": 1, "negative": ["neg", 0]}
    for key, model, positive in (("stock", "model", "plain"), ("all", "ungated", "naming"), ("mix", "on", "mixed")):
        extra[key] = node("KSampler", model=[model, 0], positive=[positive, 0], latent_image=["latent", 0], **first)
        extra[f"{key}-save"] = graphs.save([key, 0])
    run = server.run(base() | extra)
    found = {key: server.tensors(run, f"{key}-save")["0.samples"] for key in ("stock", "all", "mix")}
    torch.testing.assert_close(found["mix"], (found["stock"] + found["all"]) / 2, rtol=0, atol=1e-5)


def test_saved_and_loaded_it_acts_the_same(server: ComfyServer) -> None:
    run = server.run(base() | GATED | {"saved": node("DualRealSavePair", pair=["gated", 0], filename_prefix="gated", consent="")})
    said = run.text("saved")
    assert "Prompt gate: the identity acts only on prompts with 'sks dog'" in said
    name = said.removeprefix("Saved as ").partition(" in models/dualreal.")[0]
    extra = {"loaded": node("DualRealLoadPair", name=name), "again": apply([*MODEL], ["loaded", 0]), **GATED}
    extra["refit"] = node("DualRealSavePair", pair=["from its own words", 0], filename_prefix="refit", consent="")
    extra["from its own words"] = gate("loaded", "", "")
    branches = {f"{key} {name}": ([key, 0], PROMPTS[name]) for key in ("on", "again") for name in ("motion", "neither")}
    found, run = sampled(server, extra, branches)
    assert run.text("loaded").startswith("Prompt gate: the identity acts only on prompts with 'sks dog'")
    assert "'sks dog'" in run.text("from its own words")
    for prompt in ("motion", "neither"):
        assert found[f"again {prompt}"].equal(found[f"on {prompt}"]), prompt


def test_both_experts_follow_the_prompt(server: ComfyServer, models: Path) -> None:
    folder = models / "diffusion_models"
    for file in (HIGH, LOW):
        shutil.copyfile(folder / ARCHITECTURES["wan"].checkpoint, folder / file)
    graph = base() | {key: node("UNETLoader", unet_name=file, weight_dtype="default") for key, file in (("high", HIGH), ("low", LOW))}
    graph |= {"pair": pair_of([*MODEL]), "gated": gate()}
    for key, pair in (("on", "gated"), ("ungated", "pair")):
        settings = apply(["high", 0], [pair, 0])["inputs"]
        graph[key] = node("DualRealApplyTwoExperts", model_high=settings.pop("model"), model_low=["low", 0], **settings)
    branches: Branches = {}
    for index, stock in enumerate(("high", "low")):
        branches |= {f"{stock} {key}": (["on", index], PROMPTS[key]) for key in ("neither", "both")}
        branches |= {f"as {stock} neither": ([stock, 0], PROMPTS["neither"]), f"as {stock} both": (["ungated", index], PROMPTS["both"])}
    found, run = sampled(server, graph, branches)
    for key in (key for key in branches if not key.startswith("as ")):
        assert found[key].equal(found[f"as {key}"]), key
    assert run.text("on").count("Prompt gate: ") == 1


def test_where_no_words_are_known_it_says_what_to_give(server: ComfyServer) -> None:
    nothing = {"pair": pair_of([*MODEL]), "gated": gate("pair", "", " "), "on": apply([*MODEL], ["gated", 0])}
    message = "Nothing says which words of a prompt name the identity or the motion: write them into identity_words "
    with pytest.raises(RunFailed, match=message):
        sampled(server, nothing, {"any": (["on", 0], "a dog")})


def num_encoded(server: ComfyServer, extra: Graph, after: Link) -> tuple[int, Run]:
    run = server.run(base() | extra | {"count": node("BenchEncoded", clip=["clip", 0], after=after)})
    return int(run.text("count")), run


def test_two_loras_act_on_prompts_with_their_trigger_words(server: ComfyServer, models: Path) -> None:
    """One file names its words; the other one's acts on every prompt, and what to do about it is said."""
    cat, walk = write(models, "gated cat.safetensors", 21, "sks cat"), write(models, "gated walk.safetensors", 22)
    extra = {
        "two": blend_two(cat, walk, clip=["clip", 0]), "plain": blend_two(cat, walk), "walk": blend_two(cat, walk, identity_strength=0.0),
        "softer": blend_two(cat, walk, identity_strength=0.5, clip=["clip", 0]),
    }  # fmt: skip
    prompts = {"other": PROMPTS["neither"], "named": "a sks cat on grass"}
    branches = {key: (["two", 0], prompt) for key, prompt in prompts.items()}
    branches |= {"as other": (["walk", 0], prompts["other"]), "as named": (["plain", 0], prompts["named"])}
    found, run = sampled(server, extra, branches)
    assert found["named"].equal(found["as named"])
    torch.testing.assert_close(found["other"], found["as other"], rtol=0, atol=1e-4)  # weight 0 instead of no weight
    said = run.text("two")
    assert "Prompt gate: the identity acts only on prompts with 'sks cat'." in said
    assert "Nothing says which words name the motion, so it acts on every prompt: write them into motion_words ('motion acts on')." in said
    before, _ = num_encoded(server, {"two": extra["two"]}, ["two", 0])
    after, again = num_encoded(server, {"two": extra["softer"]}, ["two", 0])
    assert before > 100 and after == before, "prompts are encoded again where a strength changes"
    assert "'sks cat'" in again.text("two")
    _, useless = num_encoded(server, {"two": blend_two(cat, walk, motion_words=MOTION)}, ["two", 0])
    assert "motion_words do nothing without clip: wire the text encoder of the model." in useless.text("two")


def test_another_models_text_encoder_is_refused(server: ComfyServer) -> None:
    graph = base() | GATED | {"clip": node("BenchWords", text_dim=768, pooled_dim=0, has_mask=False)}
    graph |= {"saved": node("DualRealSavePair", pair=["gated", 0], filename_prefix="no", consent="")}
    with pytest.raises(RunFailed, match=r"The text of clip is 768 wide .as of CLIP-L., and this Wan model reads text of width 4096"):
        server.run(graph)


def test_the_trainer_makes_the_gate_by_the_captions(server: ComfyServer) -> None:
    """On the embedded model, by what Example Data says of figure and motion."""
    graph = embedded_training({}, {"steps": 1, "evaluate_every": 0}, "gated", clip=["base", 1])
    said = server.run(graph).text("train")
    assert "the identity acts only on prompts with '*'" in said and "the motion acts only on prompts with 'traces an eight'" in said
    assert b"prompt_gate" in next((server.base / "output" / "dualreal" / "runs" / "gated").glob("*/pair.safetensors")).read_bytes()
    untold = {**graph, "text": node("PrimitiveString", value="people")}
    for key in ("photos", "clips"):
        untold[key] = node(untold[key]["class_type"], **{**untold[key]["inputs"], "texts": ["text", 0]})
    without = "The pair has no prompt gate, as its captions tell no words that name a side: give some in Prompt Gate."
    assert without in server.run(untold).text("train")
