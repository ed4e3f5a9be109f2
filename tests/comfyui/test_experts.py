"""Both experts of a model as one: a pair on both, one run in one sampler or two, and the LoRAs of both as one side of a pair."""

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
from safetensors.torch import load_file, save_file
from test_blending import apply, pair_of, stem
from test_split_sampling import STAGES, STEPS, shown, stretch

HIGH, LOW = "wan2.2_t2v_high_noise_14B.safetensors", "wan2.2_t2v_low_noise_14B.safetensors"
SIGMAS = {"high": [0.95, 0.9], "low": [0.6, 0.2]}
EXACT_SHIFT = 1.0
"""With it the four steps end at sigmas .75, .5, .25 and 0: taking noise off and putting it on again is then exact at the second."""


@pytest.fixture(scope="module")
def experts(models: Path) -> Path:
    """Checkpoints of both experts, the low one with other weights."""
    folder, generator = models / "diffusion_models", torch.Generator().manual_seed(3)
    shutil.copyfile(folder / ARCHITECTURES["wan"].checkpoint, folder / HIGH)
    weights = load_file(folder / ARCHITECTURES["wan"].checkpoint)
    other = {key: weight[torch.randperm(len(weight), generator=generator)].contiguous() for key, weight in weights.items()}
    save_file(other, folder / LOW)
    (models / "loras").mkdir(exist_ok=True)
    return models


def load(file: str) -> dict:
    return node("UNETLoader", unet_name=file, weight_dtype="default")


def apply_two(pair: Link, high: Link = ("high", 0), low: Link = ("low", 0), **settings: object) -> dict:
    settings = apply(list(high), list(pair), **settings)["inputs"]
    models = {"model_high": settings.pop("model"), "model_low": list(low)}
    return node("DualRealApplyTwoExperts", **models, **settings)


def two_models(high: str = HIGH, low: str = LOW) -> Graph:
    return {**stem("wan"), "high": load(high), "low": load(low)}


def said(run: Run, key: str = "applied") -> str:
    return run.text(key) if key in run.outputs else ""


def latent_of(server: ComfyServer, run: Run, key: str) -> torch.Tensor:
    return server.tensors(run, f"save-{key}")["0.samples"]


def exact(key: str, file: str) -> Graph:
    """A MODEL `KEY` that loses nothing between two samplers at half of denoising."""
    return {
        f"{key}-file": load(file),
        f"{key}-plain": node("BenchPlainLatents", model=[f"{key}-file", 0]),
        key: node("ModelSamplingSD3", model=[f"{key}-plain", 0], shift=EXACT_SHIFT),
    }


def halves(key: str, applied: str, cfg: float = 4.0) -> Graph:
    """Two KSamplerAdvanced on both MODELs of node `applied`; the latent comes out of `low-KEY`."""
    low = stretch(2, STEPS, f"high-{key}", cfg=cfg)
    low["inputs"]["model"] = [applied, 1]
    return {f"high-{key}": stretch(0, 2, model=applied, cfg=cfg), f"low-{key}": low}


def custom_halves(key: str, applied: str) -> Graph:
    """The same by SplitSigmas and SamplerCustom."""
    graph = {
        f"how-{key}": node("KSamplerSelect", sampler_name="euler"),
        f"sigmas-{key}": node("BasicScheduler", model=[applied, 0], scheduler="simple", steps=STEPS, denoise=1.0),
        f"split-{key}": node("SplitSigmas", sigmas=[f"sigmas-{key}", 0], step=2),
    }
    for index, (part, latent) in enumerate((("high", "latent"), ("low", f"high-{key}"))):
        graph[f"{part}-{key}"] = node(
            "SamplerCustom", model=[applied, index], add_noise=index == 0, noise_seed=1, cfg=4.0, positive=["pos", 0], negative=["neg", 0],
            sampler=[f"how-{key}", 0], sigmas=[f"split-{key}", index], latent_image=[latent, 0],
        )  # fmt: skip
    return graph


@pytest.mark.parametrize("blend", ["identity late", None])
def test_two_samplers_on_equal_models_are_one_sampler(server: ComfyServer, experts: Path, blend: str | None) -> None:
    """By the pair's own StageBlender and by a schedule; by KSampler (Advanced) and by split sigmas; one pair, or one of equal halves.

    Bit for bit, but for a StageBlender of both experts: processors may round a product of more rows otherwise.
    """
    file = ARCHITECTURES["wan"].checkpoint
    shutil.copyfile(experts / "diffusion_models" / file, experts / "diffusion_models" / "wan again.safetensors")
    plan = {"blend": ["plan", 0]} if blend else {}
    graph = {**stem("wan"), **exact("high", file), **exact("low", "wan again.safetensors"), "pair": pair_of(["high", 0])}
    graph |= {
        "plan": node("DualRealScheduleBlend", preset=blend or "even"),
        "joined": node("BenchJoin", high=["pair", 0], low=["pair", 0]),
        "one": apply(["high", 0], ["pair", 0], **plan),
        "whole": stretch(0, STEPS, model="one"),
        "both": apply_two(("pair", 0), **plan),
        "equal": apply_two(("joined", 0), **plan),
        "save-stock": graphs.save(["stock", 0]),
        "stock": stretch(0, STEPS, model="high"),
    }
    graph |= halves("both", "both") | halves("equal", "equal") | custom_halves("custom", "equal") | shown("whole", "whole", ("one", 0))
    for key, applied in (("both", "both"), ("equal", "equal"), ("custom", "equal")):
        graph |= shown(key, f"low-{key}", (applied, 0))
    graph |= shown("from-low", "low-both", ("both", 1))
    graph |= shown("both-wired", "low-both", ("both", 0), low_noise_model=["both", 1])
    run = server.run(graphs.afresh(graph, "latent"))
    whole, one_map = latent_of(server, run, "whole"), json.loads(run.text("show-whole"))
    assert not whole.equal(latent_of(server, run, "stock"))
    for key in ("both", "equal", "custom", "from-low", "both-wired"):
        near = 0.0 if blend or key not in ("equal", "custom") else 1e-4
        torch.testing.assert_close(latent_of(server, run, key), whole, rtol=0, atol=near, msg=key)
        own_map = json.loads(run.text(f"show-{key}"))
        assert own_map.keys() == one_map.keys() and own_map["stages"] == one_map["stages"], key
        for role in ("identity", "motion"):
            torch.testing.assert_close(torch.tensor(own_map[role]), torch.tensor(one_map[role]), rtol=0, atol=near, msg=key)
    assert one_map["stages"] == pytest.approx(STAGES, abs=1e-3)


def test_each_half_acts_on_its_expert(server: ComfyServer, experts: Path) -> None:
    """As a pair of its own would, by Apply StageBlender: a pair for two experts, or two pairs."""
    graph = two_models() | {
        "first": pair_of(["high", 0], seed=1, has_controller=False),
        "second": pair_of(["high", 0], seed=2, has_controller=False),
        "joined": node("BenchJoin", high=["first", 0], low=["second", 0]),
        "one-high": apply(["high", 0], ["first", 0]),
        "one-low": apply(["low", 0], ["second", 0]),
        "high-apart": stretch(0, 2, model="one-high"),
        "low-apart": stretch(2, STEPS, "high-apart", "one-low"),
        "applied": apply_two(("joined", 0)),
        "paired": apply_two(("first", 0), low_pair=["second", 0]),
        "kept": node("DualRealSavePair", pair=["joined", 0], filename_prefix="both experts", consent=""),
        **{f"save-{key}": graphs.save([f"low-{key}", 0]) for key in ("apart", "joined", "paired")},
    }
    graph |= halves("joined", "applied") | halves("paired", "paired")
    run = server.run(graphs.afresh(graph, "latent"))
    apart = latent_of(server, run, "apart")
    assert latent_of(server, run, "joined").equal(apart) and latent_of(server, run, "paired").equal(apart)
    assert "two experts" not in said(run) and "swapped" not in said(run)
    (file,) = (server.base / "models" / "dualreal").glob("both experts*.safetensors")
    graph = (
        two_models()
        | {
            "loaded": node("DualRealLoadPair", name=file.name),
            "combined": node("DualRealCombine", identity=["loaded", 0], motion=["loaded", 0]),
            "applied": apply_two(("combined", 0)),
            "save-again": graphs.save(["low-again", 0]),
        }
        | halves("again", "applied")
    )
    assert latent_of(server, server.run(graph), "again").equal(apart)


def test_one_model_takes_its_half_by_its_name(server: ComfyServer, experts: Path) -> None:
    graph = two_models() | {
        "first": pair_of(["high", 0], seed=1),
        "second": pair_of(["high", 0], seed=2),
        "joined": node("BenchJoin", high=["first", 0], low=["second", 0]),
        "half": apply(["low", 0], ["joined", 0]),
        "alone": apply(["low", 0], ["second", 0], blend=["plan", 0]),
        "plan": node("DualRealScheduleBlend", preset="even"),
    }
    graph["half"]["inputs"]["blend"] = ["plan", 0]
    graph |= {f"run-{key}": stretch(0, STEPS, model=key) for key in ("half", "alone")}
    graph |= {f"save-{key}": graphs.save([f"run-{key}", 0]) for key in ("half", "alone")}
    run = server.run(graphs.afresh(graph, "latent"))
    assert latent_of(server, run, "half").equal(latent_of(server, run, "alone"))
    assert said(run, "half") == f"{LOW}: the low-noise half of the pair acts here."
    graph["low"]["inputs"]["unet_name"] = ARCHITECTURES["wan"].checkpoint
    with pytest.raises(RunFailed, match=r"two experts \(high-noise and low-noise\).*Apply StageBlender \(two experts\).*says neither"):
        server.run(graph)


def test_models_that_are_mixed_up_are_told(server: ComfyServer, experts: Path) -> None:
    show = {"shown": node("PreviewAny", source=["applied", 0])}
    graph = two_models(LOW, HIGH) | {"pair": pair_of(["high", 0]), "applied": apply_two(("pair", 0))} | show
    sentence = said(server.run(graph))
    assert f"seem to be swapped: model_high is {LOW}, model_low is {HIGH}" in sentence
    assert f"model_low is {HIGH}, which is the high-noise expert" in said(server.run({**graph, "high": load(HIGH)}))
    shifted = two_models() | {"pair": pair_of(["high", 0]), "shifted": node("ModelSamplingSD3", model=["low", 0], shift=5.0)} | show
    run = server.run(shifted | {"applied": apply_two(("pair", 0), low=("shifted", 0))})
    assert "different noise schedules (shift 8 and 5)" in said(run)
    assert said(server.run(two_models() | {"pair": pair_of(["high", 0]), "applied": apply_two(("pair", 0))} | show)) == ""


def test_models_that_are_no_two_experts_of_one_are_told(server: ComfyServer, experts: Path) -> None:
    """One MODEL on both inputs, also behind other nodes; and experts of text to video and of image to video."""
    folder, other = experts / "diffusion_models", "image to video.safetensors"
    weights = load_file(folder / LOW)
    weights["patch_embedding.weight"] = torch.cat([weights["patch_embedding.weight"], torch.zeros(256, 20, 1, 2, 2)], dim=1)
    save_file(weights, folder / other)
    graph = {**two_models(), "pair": pair_of(["high", 0]), "shown": node("PreviewAny", source=["applied", 0])}
    one = {"again": node("ModelSamplingSD3", model=["high", 0], shift=8.0), "applied": apply_two(("pair", 0), low=("again", 0))}
    assert "model_high and model_low are the same MODEL: wire the high-noise and the low-noise model" in said(server.run(graph | one))
    run = server.run(graph | {"low": load(other), "applied": apply_two(("pair", 0))})
    assert "model_high and model_low are of different kinds, as text to video and image to video" in said(run)


def test_settings_that_make_no_sense_are_refused(server: ComfyServer, experts: Path) -> None:
    graph = two_models() | {"pair": pair_of(["high", 0]), "joined": node("BenchJoin", high=["pair", 0], low=["pair", 0])}
    graph |= {"other": graphs.load_model("ltxv"), "shown": node("PreviewAny", source=["applied", 0])}
    for applied, reason in (
        (apply_two(("pair", 0), start_percent=0.6, end_percent=0.5), "start_percent 0.6 is not below"),
        (apply_two(("pair", 0), low_pair=["joined", 0]), "needs no second one"),
        (apply_two(("pair", 0), low=("other", 0)), "model_low: The pair was made for a base with family wan"),
    ):
        with pytest.raises(RunFailed, match=reason):
            server.run(graph | {"applied": applied})


def write_lora(models: Path, file: str, seed: int, prefix: str = "diffusion_model.", others: dict | None = None) -> dict[str, torch.Tensor]:
    """A LoRA of three layers; returns its tensors."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for layer in ("blocks.0.self_attn.q", "blocks.1.cross_attn.k", "blocks.2.ffn.0"):
        rows = 512 if layer.endswith("ffn.0") else 256
        tensors[f"{prefix}{layer}.lora_A.weight"] = 0.1 * torch.randn(3, 256, generator=generator)
        tensors[f"{prefix}{layer}.lora_B.weight"] = 0.3 * torch.randn(rows, 3, generator=generator)
    (models / "loras" / file).parent.mkdir(parents=True, exist_ok=True)
    save_file({**tensors, **(others or {})}, models / "loras" / file)
    return tensors


def two_loras(lora: str, partner: str = "found by name") -> Graph:
    loaded = node("DualRealLoadTwoExpertLoras", model_high=["high", 0], model_low=["low", 0], role="motion", lora=lora, partner=partner)
    return two_models() | {"loras": loaded, "applied": apply_two(("loras", 0), negative="adapted")}


def by_stock(high: str | None, low: str | None) -> Graph:
    graph = two_models()
    for key, file in (("high", high), ("low", low)):
        strength = 1.0 if file else 0.0
        graph[f"{key}-lora"] = node("LoraLoaderModelOnly", model=[key, 0], lora_name=file or low or high, strength_model=strength)
    return graph


def predictions(server: ComfyServer, graph: Graph, high: Link, low: Link, *fresh: str) -> tuple[Run, list[torch.Tensor]]:
    """Guided predictions of both MODELs, so that a difference comes from them alone."""
    for key, model in (("high", high), ("low", low)):
        raw = graphs.raw_predictions(list(model), SIGMAS[key])
        graph = graph | {f"{part}-{key}": value for part, value in raw.items()}
        graph[f"sample-{key}"]["inputs"] |= {"sampler": [f"raw-{key}", 0], "sigmas": [f"sigmas-{key}", 0]}
        graph[f"save-{key}"] = graphs.save([f"sample-{key}", 0])
    run = server.run(graphs.afresh(graph, *fresh))
    return run, [latent_of(server, run, key) for key in ("high", "low")]


def test_loras_of_both_experts_are_found_by_name(server: ComfyServer, experts: Path) -> None:
    """From either of them, and by hand, they act as the stock loader applies each to its expert."""
    files = "walk/Walk_HIGH_v2.safetensors", "walk/walk-low-noise-v2.safetensors"
    write_lora(experts, files[0], 1), write_lora(experts, files[1], 2)
    _, stock = predictions(server, by_stock(*files), ("high-lora", 0), ("low-lora", 0))
    for lora, partner in ((files[0], "found by name"), (files[1], "found by name"), files, files[::-1]):
        run, ours = predictions(server, two_loras(lora, partner), ("applied", 0), ("applied", 1))
        for mine, theirs in zip(ours, stock, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        assert said(run, "loras") == f"High noise: {files[0]}. Low noise: {files[1]}."


@pytest.mark.parametrize(
    "prefixes", [("transformer.", "transformer_2."), ("diffusion_model.transformer_1.", "diffusion_model.transformer_2.")]
)
def test_one_file_may_hold_both_loras(server: ComfyServer, experts: Path, prefixes: tuple[str, str]) -> None:
    write_lora(experts, "first half.safetensors", 1), write_lora(experts, "second half.safetensors", 2)
    _, stock = predictions(server, by_stock("first half.safetensors", "second half.safetensors"), ("high-lora", 0), ("low-lora", 0))
    write_lora(experts, "both.safetensors", 1, prefixes[0], write_lora(experts, "unused.safetensors", 2, prefixes[1]))
    run, ours = predictions(server, two_loras("both.safetensors"), ("applied", 0), ("applied", 1), "loras")
    for mine, theirs in zip(ours, stock, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert "both.safetensors holds the LoRAs of both experts." in said(run, "loras")
    alone = two_models() | {"lora": node("DualRealLoadMotionLora", model=["low", 0], lora="both.safetensors")}
    alone |= {"applied": apply(["low", 0], ["lora", 0], negative="adapted")}
    run, (_, low) = predictions(server, alone, ("high", 0), ("applied", 0), "lora")
    torch.testing.assert_close(low, stock[1], rtol=1e-4, atol=1e-4)
    assert "Left out 6 tensors of the high-noise expert" in said(run, "lora")


def test_a_lora_of_one_expert_leaves_the_other_as_it_is(server: ComfyServer, experts: Path) -> None:
    write_lora(experts, "only_low_noise.safetensors", 5)
    _, stock = predictions(server, by_stock(None, "only_low_noise.safetensors"), ("high", 0), ("low-lora", 0))
    run, ours = predictions(server, two_loras("only_low_noise.safetensors", "none"), ("applied", 0), ("applied", 1))
    assert ours[0].equal(stock[0])
    torch.testing.assert_close(ours[1], stock[1], rtol=1e-4, atol=1e-4)
    assert "acts on the low-noise expert, and nothing on the other" in said(run, "loras")
    assert "no side for the high-noise expert" in said(run)


@pytest.mark.parametrize("wired", [(0, 1), (1, 0)])
def test_the_map_shows_an_expert_also_where_the_other_has_no_pair(server: ComfyServer, experts: Path, wired: tuple[int, int]) -> None:
    write_lora(experts, "mapped_low_noise.safetensors", 7)
    graph = two_loras("mapped_low_noise.safetensors", "none") | halves("map", "applied")
    first, second = (("applied", index) for index in wired)
    run = server.run(graphs.afresh(graph | shown("map", "low-map", first, low_noise_model=list(second)), "latent"))
    weights = json.loads(run.text("show-map"))
    assert weights["stages"] == pytest.approx(STAGES[2:], abs=1e-3)
    graph |= {"map": node("DualRealBlendMap", model=["high", 0], latent=["low-map", 0], low_noise_model=["low", 0])}
    with pytest.raises(RunFailed, match="carries no pair"):
        server.run(graph)


@pytest.mark.parametrize(("mark", "expert"), [("high", "high-noise"), ("low", "low-noise")])
def test_two_loras_of_one_expert_are_told(server: ComfyServer, experts: Path, mark: str, expert: str) -> None:
    files = f"a_{mark}.safetensors", f"b_{mark}.safetensors"
    for seed, file in enumerate(files):
        write_lora(experts, file, seed)
    run = server.run(two_loras(*files) | {"shown": node("PreviewAny", source=["applied", 0])})
    assert f"Both files are of the {expert} expert by their names or keys, {files[0]} and {files[1]}" in said(run, "loras")


@pytest.mark.parametrize(
    ("files", "lora", "partner", "reason"),
    [
        (["lonely_high.safetensors"], "lonely_high.safetensors", "found by name", "No partner of lonely_high.*looked for.*high_noise"),
        (["a/run_h.safetensors", "a/run_l.safetensors", "a/run-L.safetensors"], "a/run_h.safetensors", "found by name", "2 files may be"),
        (["nameless.safetensors"], "nameless.safetensors", "none", "does not say by its name which expert"),
        (["LOW_POLY_style.safetensors"], "LOW_POLY_style.safetensors", "none", "does not say by its name which expert"),
        (["cat/lora_high.safetensors", "dog/lora_low.safetensors"], "cat/lora_high.safetensors", "found by name", "found in its folder"),
    ],
    ids=["none", "several", "nameless", "low poly", "other folder"],
)
def test_partners_that_are_not_known_are_asked_for(
    server: ComfyServer, experts: Path, files: list[str], lora: str, partner: str, reason: str
) -> None:
    for seed, file in enumerate(files):
        write_lora(experts, file, seed)
    with pytest.raises(RunFailed, match=reason):
        server.run(two_loras(lora, partner) | {"shown": node("PreviewAny", source=["applied", 0])})


@pytest.mark.parametrize("file", ["run_high_noise.safetensors", "MyLora_high_e20.safetensors"])
def test_a_lora_of_the_other_expert_is_told(server: ComfyServer, experts: Path, file: str) -> None:
    write_lora(experts, file, 6)
    graph = two_models() | {"lora": node("DualRealLoadMotionLora", model=["high", 0], lora=file)}
    graph |= {"wrong": apply(["low", 0], ["lora", 0]), "right": apply(["high", 0], ["lora", 0]), "applied": apply_two(("lora", 0))}
    graph |= {f"show-{key}": node("PreviewAny", source=[key, 0]) for key in ("wrong", "right", "applied")}
    run = server.run(graph)
    for key in ("wrong", "applied"):
        assert f"{file} is a LoRA of the high-noise expert by its name" in said(run, key)
    assert said(run, "right") == ""


def test_cfg_1_is_said_where_the_plain_negative_does_nothing(server: ComfyServer, experts: Path) -> None:
    """Once for each sampling in the log, and by Blend Map; not under guidance, nor where the negative is adapted."""
    graph = two_models() | {
        "pair": pair_of(["high", 0]),
        "plain": apply_two(("pair", 0)),
        "adapted": apply_two(("pair", 0), negative="adapted"),
    }
    graph |= halves("one", "plain", cfg=1.0) | shown("one", "low-one", ("plain", 0))
    graph |= halves("four", "plain") | shown("four", "low-four", ("plain", 0))
    graph |= halves("adapted", "adapted", cfg=1.0) | shown("adapted", "low-adapted", ("adapted", 0))
    begin = len(server.log())
    run = server.run(graphs.afresh(graph, "latent"))
    sentence = "The negative prompt was not computed, as at cfg 1"
    assert server.log()[begin:].count(sentence) == 2
    assert sentence in run.text("map-one") and sentence in json.loads(run.text("show-one"))["notes"][0]
    for key in ("four", "adapted"):
        assert "text" not in run.outputs[f"map-{key}"] and "notes" not in json.loads(run.text(f"show-{key}"))


def test_cfg_1_is_not_said_where_nothing_was_left_out(server: ComfyServer, experts: Path) -> None:
    """A pair that did not act, and a negative prompt whose own range was not sampled."""
    graph = two_models() | {
        "pair": pair_of(["high", 0]),
        "late": apply_two(("pair", 0), start_percent=0.99),
        "applied": apply_two(("pair", 0)),
        "ranged": node("ConditioningSetTimestepRange", conditioning=["neg", 0], start=0.95, end=1.0),
    }
    graph |= halves("late", "late", cfg=1.0) | shown("late", "low-late", ("late", 0))
    graph |= halves("ranged", "applied") | shown("ranged", "low-ranged", ("applied", 0))
    for key in ("high-ranged", "low-ranged"):
        graph[key]["inputs"]["negative"] = ["ranged", 0]
    run = server.run(graphs.afresh(graph, "latent"))
    for key in ("late", "ranged"):
        assert "notes" not in json.loads(run.text(f"show-{key}")), key
