"""Compare Blends on a real ComfyUI: as SamplerCustomAdvanced is wired, overruled by hand, on two experts, stopped, and what it refuses."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES, WAN_VAE
from comfy_run import Run, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from test_two_loras import HIGH, LOW, blend_two, write

STEPS = 4
CANDIDATES = "movement first 0\nlate = identity sigma 1:0 0:1.5; motion sigma 1:1.5 0:0.5\neven"


@pytest.fixture(scope="module")
def files(models: Path) -> tuple[str, str]:
    return write(models, "cat compared.safetensors", 21), write(models, "walk compared.safetensors", 22)


def wired(identity: str, motion: str, steps: int = STEPS, cfg: float = 4.0) -> Graph:
    """As for SamplerCustomAdvanced, up to its inputs."""
    graph = graphs.text_to_latent("wan")
    return {key: graph[key] for key in ("model", "pos", "neg", "latent")} | {
        "two": blend_two(identity, motion),
        "noise": node("RandomNoise", noise_seed=5),
        "guider": node("CFGGuider", model=["two", 0], positive=["pos", 0], negative=["neg", 0], cfg=cfg),
        "how": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["two", 0], scheduler="simple", steps=steps, denoise=1.0),
    }


def compare(**settings: object) -> Graph:
    common = {
        "noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["how", 0], "sigmas": ["sigmas", 0], "latent_image": ["latent", 0],
        "candidates": CANDIDATES, "steps": 0, "size": 1.0, "length": 1.0, "choice": "automatic", "rule": "mean",
    }  # fmt: skip
    return {
        "compare": node("DualRealCompareBlends", **{**common, **settings}),
        "data": node("PreviewAny", source=["compare", 2]),
        "sheet": node("SaveImage", images=["compare", 1], filename_prefix="sheet"),
    }


def data_of(run: Run) -> dict:
    return json.loads(run.text("data"))


def test_candidates_are_judged_and_one_is_given(server: ComfyServer, files: tuple[str, str]) -> None:
    """What it gives acts as the blend of that name, and choosing by hand samples nothing again."""
    run = server.run(wired(*files) | compare())
    found = data_of(run)
    assert list(found["candidates"]) == ["movement first 0", "late", "even"] and found["chosen"] == found["proposed"]
    assert all({"curves", "movement", "looks"} == scores.keys() for scores in found["candidates"].values())
    assert run.progress("compare")[-1] == (5 * STEPS, 5 * STEPS)
    assert any(preview for preview in run.previews), "nothing is shown while it works"
    assert run.files("compare") and run.files("sheet") and f"Proposed by the mean of both: {found['proposed']}." in run.text("compare")
    chosen = server.run(wired(*files) | compare(choice="2") | proposed_and_by_hand(files))
    assert data_of(chosen)["chosen"] == "late" and ("Chosen by hand: late." in chosen.text("compare")) == (found["proposed"] != "late")
    assert not chosen.progress("compare") or chosen.progress("compare")[-1][1] != 5 * STEPS, "it sampled again"
    latents = [server.tensors(chosen, key)["0.samples"] for key in ("save-given", "save-drawn")]
    assert latents[0].equal(latents[1])


def proposed_and_by_hand(files: tuple[str, str]) -> Graph:
    """Samples with the BLEND that was given, and with the same curves drawn."""
    drawn = "identity sigma 1:0 0:1.5\nmotion sigma 1:1.5 0:0.5"
    graph: Graph = {"drawn": node("DualRealBlendCurves", curves=drawn)}
    for key, blend in (("given", ["compare", 0]), ("drawn", ["drawn", 0])):
        graph |= {
            f"two-{key}": blend_two(*files, blend=blend),
            f"guider-{key}": node("CFGGuider", model=[f"two-{key}", 0], positive=["pos", 0], negative=["neg", 0], cfg=4.0),
            f"made-{key}": node(
                "SamplerCustomAdvanced", noise=["noise", 0], guider=[f"guider-{key}", 0], sampler=["how", 0], sigmas=["sigmas", 0],
                latent_image=["latent", 0],
            ),
            f"save-{key}": graphs.save([f"made-{key}", 0]),
        }  # fmt: skip
    return graph


def test_the_guider_samples_afterwards_what_it_did(server: ComfyServer, files: tuple[str, str]) -> None:
    """Fewer steps, a smaller picture and a wired blend among the candidates; at cfg 1, with a VAE."""
    graph = wired(*files, cfg=1.0) | {
        "vae": node("VAELoader", vae_name=WAN_VAE),
        "share": node("DualRealFixedBlend", identity_share=0.3),
    }
    sampled = {
        "made": node("SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["how", 0], sigmas=["sigmas", 0],
                     latent_image=["latent", 0]),
        "save": graphs.save(["made", 0]),
    }  # fmt: skip
    before = server.tensors(server.run(graph | sampled))["0.samples"]
    run = server.run(graph | compare(steps=2, size=0.5, length=0.5, blend=["share", 0], vae=["vae", 0]))
    assert list(data_of(run)["candidates"])[-1] == "wired blend" and run.progress("compare")[-1] == (12, 12)
    sampled["made"]["inputs"]["latent_image"] = ["again", 0]
    again = server.run(graph | sampled | {"again": graphs.empty_latent("wan")})
    assert server.tensors(again)["0.samples"].equal(before)


def test_both_experts_take_turns(server: ComfyServer, models: Path, files: tuple[str, str]) -> None:
    """By sigmas of each, or by all of them, split where the experts switch."""
    folder = models / "diffusion_models"
    for file in (HIGH, LOW):
        shutil.copyfile(folder / ARCHITECTURES["wan"].checkpoint, folder / file)
    graph = wired(*files)
    graph |= {key: node("UNETLoader", unet_name=file, weight_dtype="default") for key, file in (("high", HIGH), ("low", LOW))}
    graph["two"] = blend_two(*files, ["high", 0], low_noise_model=["low", 0], identity_partner="same file", motion_partner="same file")
    graph["low-guider"] = node("CFGGuider", model=["two", 1], positive=["pos", 0], negative=["neg", 0], cfg=4.0)
    graph["split"] = node("SplitSigmas", sigmas=["sigmas", 0], step=2)
    found = []
    for settings in ({}, {"sigmas": ["split", 0], "low_noise_sigmas": ["split", 1]}):
        run = server.run(graph | compare(low_noise_guider=["low-guider", 0], **settings))
        assert run.progress("compare")[-1] == (5 * STEPS, 5 * STEPS)
        found.append(data_of(run)["candidates"])
    numbers = torch.tensor(
        [[value for scores in one.values() for value in (scores["movement"], scores["looks"]) if value] for one in found]
    )
    assert numbers.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"candidates": "even"}, "There are 1 candidates: give 2 to 5"),
        ({"candidates": "even\nwrong"}, "'wrong', which is no blend"),
        ({"choice": "5"}, "choice is 5, and there are 3"),
        ({"candidates": "even\nmotion alone = even"}, "cannot be named 'motion alone'"),
        ({"low_noise_sigmas": ["sigmas", 0]}, "wire its guider into low_noise_guider"),
    ],
)
def test_what_cannot_be_compared_is_named(server: ComfyServer, files: tuple[str, str], settings: dict, said: str) -> None:
    with pytest.raises(RunFailed, match=said) as failed:
        server.run(wired(*files) | compare(**settings))
    assert failed.value.node_id == "compare"


def test_alone_it_runs_too_and_says_where_previews_stop_in_noise(server: ComfyServer, files: tuple[str, str]) -> None:
    graph = wired(*files) | {"split": node("SplitSigmas", sigmas=["sigmas", 0], step=2)}
    for sigmas, is_said in ((["split", 0], True), (["sigmas", 0], False)):
        run = server.run(graph | {"compare": compare(sigmas=sigmas, steps=2, candidates="even\nidentity late")["compare"]})
        assert ("The previews end in noise, at sigma 0.889" in run.text("compare")) == is_said


def test_it_needs_two_sides(server: ComfyServer, files: tuple[str, str]) -> None:
    with pytest.raises(RunFailed, match="has no motion that acts"):
        server.run(wired(files[0], "none") | compare())
    plain = wired(*files)
    plain["guider"]["inputs"]["model"] = ["model", 0]
    with pytest.raises(RunFailed, match="carries no pair"):
        server.run(plain | compare())


def test_a_stop_is_heard_at_once(server: ComfyServer, files: tuple[str, str]) -> None:
    graph = graphs.afresh(wired(*files, steps=400) | compare(), "guider")
    prompt = server.queue(graph)
    server.wait_for_progress(prompt, "compare", 3)
    asked = time.monotonic()
    server.interrupt()
    with pytest.raises(RunFailed) as stopped:
        server.wait(prompt)
    assert stopped.value.is_interrupt and time.monotonic() - asked < 5
