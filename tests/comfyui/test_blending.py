"""Apply StageBlender on a real ComfyUI: exactness, composition, rows, stages and memory, for every architecture."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from architectures import ARCHITECTURES
from comfy_server import ComfyServer
from graphs import Graph, node

CFG = 4.0
NAMES = list(ARCHITECTURES)
STOCK_LAYERS = {
    "wan": ("blocks.0.self_attn.o", 256),
    "cogvideox": ("blocks.0.attn_out", 256),
    "ltxv": ("transformer_blocks.0.attn1.to_out.0", 256),
    "hunyuan": ("double_blocks.0.img_attn.proj", 128),
}
"""A square layer of the first block, and its width."""
OTHERS_THAN_COGVIDEOX = [name for name in NAMES if name != "cogvideox"]


def apply(model: list, pair: list, **settings: object) -> dict:
    defaults = {"identity_strength": 1.0, "motion_strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "negative": "plain base"}
    return node("DualRealApplyStageBlender", model=model, pair=pair, **{**defaults, **settings})


def pair_of(model: list, spread: float = 0.1, seed: int = 0, kind: str = "lora", has_controller: bool = True) -> dict:
    return node("BenchPair", model=model, kind=kind, spread=spread, seed=seed, has_controller=has_controller)


def branch(name: str, key: str, model: list) -> Graph:
    """A sampler of its own behind `model`, its latent saved by node `save-KEY`."""
    sampling = graphs.sampling(name, model)
    renamed = {part: f"{part}-{key}" for part in sampling}
    moved = {
        renamed[part]: {
            **value,
            "inputs": {
                field: [renamed[link[0]], link[1]] if isinstance(link, list) and link[0] in renamed else link
                for field, link in value["inputs"].items()
            },
        }
        for part, value in sampling.items()
    }
    return moved | {f"save-{key}": graphs.save([renamed["sample"], 0])}


def stem(name: str) -> Graph:
    graph = graphs.text_to_latent(name)
    return {key: graph[key] for key in ("model", "pos", "neg", "latent")}


def samples(server: ComfyServer, name: str, extra: Graph, branches: dict[str, list], *refreshed: str) -> dict[str, torch.Tensor]:
    graph = stem(name) | extra
    for key, model in branches.items():
        graph |= branch(name, key, model)
    run = server.run(graphs.afresh(graph, "latent", *refreshed))
    return {key: server.tensors(run, f"save-{key}")["0.samples"] for key in branches}


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
@pytest.mark.parametrize("name", NAMES)
def test_exactness(server: ComfyServer, name: str, kind: str) -> None:
    """Stock, an untrained pair, no strength, another part of denoising, and stock again after a pair: equal bit for bit."""
    extra = {
        "new": pair_of(["model", 0], spread=0.0, kind=kind),
        "pair": pair_of(["model", 0], kind=kind),
        "untrained": apply(["model", 0], ["new", 0], negative="adapted"),
        "weak": apply(["model", 0], ["pair", 0], identity_strength=0.0, motion_strength=0.0),
        "late": apply(["model", 0], ["pair", 0], start_percent=0.999),
        "full": apply(["model", 0], ["pair", 0]),
    }
    links = {key: [key, 0] for key in ("untrained", "weak", "late", "full")}
    found = samples(server, name, extra, {"stock": ["model", 0], **links, "again": ["model", 0]})
    for key in ("untrained", "weak", "late", "again"):
        assert found[key].equal(found["stock"]), key
    assert found["full"].isfinite().all() and not found["full"].equal(found["stock"])


@pytest.mark.parametrize("name", NAMES)
def test_branches_do_not_leak(server: ComfyServer, name: str) -> None:
    """Several samplers on several branches of one model give what each gives alone, and nothing stays on the module."""
    extra = {
        "one": pair_of(["model", 0], seed=1),
        "two": pair_of(["model", 0], seed=2, kind="bottleneck"),
        "a": apply(["model", 0], ["one", 0]),
        "b": apply(["model", 0], ["two", 0]),
    }
    together = samples(server, name, extra, {"a": ["a", 0], "plain": ["model", 0], "b": ["b", 0], "a2": ["a", 0]}, "a", "b")
    assert together["a"].equal(together["a2"]) and not together["a"].equal(together["b"])
    for key in ("a", "b", "plain"):
        alone = samples(server, name, extra, {key: ["model" if key == "plain" else key, 0]}, "one", "two")
        assert alone[key].equal(together[key]), key
    report = server.run(stem(name) | {"report": graphs.report(["model", 0])}).report("report")
    assert report["num_hooks"] == 0 and report["replaced_forwards"] == []


@pytest.mark.parametrize("name", NAMES)
def test_two_pairs_add_up_in_any_order(server: ComfyServer, name: str) -> None:
    """Pairs without a controller act on their own sites; both orders agree to rounding, and differ from either alone."""
    extra = {
        "one": pair_of(["model", 0], seed=1, has_controller=False),
        "two": pair_of(["model", 0], seed=2, has_controller=False),
        "a": apply(["model", 0], ["one", 0]),
        "ab": apply(["a", 0], ["two", 0]),
        "b": apply(["model", 0], ["two", 0]),
        "ba": apply(["b", 0], ["one", 0]),
    }
    found = samples(server, name, extra, {key: [key, 0] for key in ("a", "b", "ab", "ba")})
    torch.testing.assert_close(found["ab"], found["ba"], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found["ab"], found["a"], atol=1e-3) and not torch.allclose(found["ab"], found["b"], atol=1e-3)


@pytest.mark.parametrize("is_split", [False, True], ids=["one call", "two calls"])
@pytest.mark.parametrize("negative", ["plain base", "adapted"])
@pytest.mark.parametrize("name", OTHERS_THAN_COGVIDEOX)
def test_rows_have_their_own_blend(server: ComfyServer, name: str, negative: str, is_split: bool) -> None:
    """Guidance combines the blended positive with the plain or blended negative, also when ComfyUI calls them apart."""
    graph = stem(name) | {"pair": pair_of(["model", 0]), "blended": apply(["model", 0], ["pair", 0], negative=negative)}
    if is_split:
        graph["neg"] = graphs.conditioning(name, seed=12, tokens=11)
    probed = {"probe": node("BenchProbe", model=["blended", 0])}
    report = graphs.report(["probe", 0], after=["sample", 0])
    guided = server.run(
        graphs.afresh(
            graph | probed | graphs.raw_predictions(["probe", 0], [0.9, 0.4], CFG) | {"save": graphs.save(["sample", 0]), "report": report},
            "probe",
        )
    )
    calls = guided.report("report")["calls"]
    assert {len(call["cond_or_uncond"]) for call in calls} == ({1} if is_split else {2})
    positive = alone(server, graph, "blended", "pos")
    negative_part = alone(server, graph, "model" if negative == "plain base" else "blended", "neg")
    expected = negative_part + CFG * (positive - negative_part)
    torch.testing.assert_close(server.tensors(guided)["0.samples"], expected, rtol=1e-3, atol=2e-3)


def alone(server: ComfyServer, graph: Graph, model: str, prompt: str) -> torch.Tensor:
    """Predictions for one prompt, unguided; the pair sees it as a positive one."""
    raw = graphs.raw_predictions([model, 0], [0.9, 0.4], cfg=1.0)
    raw["sample"]["inputs"]["positive"] = [prompt, 0]
    return server.tensors(server.run(graph | raw | {"save": graphs.save(["sample", 0])}))["0.samples"]


@pytest.mark.parametrize("name", NAMES)
def test_blend_map_counts_steps_by_sigma(server: ComfyServer, name: str) -> None:
    """A plan's own shares come back, one row a step, though heun calls the model more often than there are steps."""
    steps, sampler = 4, "euler" if name == "cogvideox" else "heun"
    graph = stem(name) | {
        "pair": pair_of(["model", 0]),
        "blend": node("DualRealScheduleBlend", preset="identity late"),
        "blended": apply(["model", 0], ["pair", 0], blend=["blend", 0]),
        "map": node("DualRealBlendMap", model=["blended", 0], latent=["sample", 0]),
        "show": node("PreviewAny", source=["map", 1]),
    }
    run = server.run(graph | graphs.sampling(name, ["blended", 0], steps=steps, sampler=sampler))
    blend = json.loads(run.text("show"))
    assert blend["stages"] == pytest.approx([0.0, 0.25, 0.5, 0.75], abs=1e-3)
    assert [row[0] for row in blend["identity"]] == pytest.approx([0.5, 0.75, 1.0, 1.25], abs=1e-3)
    sums = torch.tensor(blend["identity"]) + torch.tensor(blend["motion"])
    torch.testing.assert_close(sums, torch.full_like(sums, 2.0), rtol=0, atol=1e-4)
    assert run.files("map"), "the map is not shown"


@pytest.mark.parametrize(("start", "end", "acts"), [(0.0, 0.5, [True] * 3 + [False] * 2), (0.5, 1.0, [False] * 3 + [True] * 2)])
def test_it_acts_in_its_part_of_denoising_alone(server: ComfyServer, start: float, end: float, acts: list[bool]) -> None:
    """With guidance, and again: the second sampling begins where the first one ended."""
    graph = stem("wan") | {
        "pair": pair_of(["model", 0]),
        "blended": apply(["model", 0], ["pair", 0], start_percent=start, end_percent=end),
        "map": node("DualRealBlendMap", model=["blended", 0], latent=["sample", 0]),
        "show": node("PreviewAny", source=["map", 1]),
    }
    for seed in (1, 2):
        run = server.run(graph | graphs.sampling("wan", ["blended", 0], seed=seed, steps=5))
        blend = json.loads(run.text("show"))
        assert [any(row) for row in blend["identity"]] == acts


@pytest.mark.parametrize("name", ["cogvideox", "hunyuan"])
def test_a_lora_and_a_bottleneck_act_as_each_does_alone(server: ComfyServer, name: str) -> None:
    """Where a bottleneck reads at one layer and writes behind another, on which the LoRA lies."""
    sides = {"lora": {"motion_strength": 0.0}, "bottleneck": {"identity_strength": 0.0}}
    extra = {kind: pair_of(["model", 0], kind=kind, has_controller=False) for kind in sides}
    extra |= {
        "both": node("DualRealCombine", identity=["lora", 0], motion=["bottleneck", 0]),
        "even": node("DualRealFixedBlend", identity_share=0.5),
        "first": apply(["model", 0], ["lora", 0], blend=["even", 0], **sides["lora"]),
        "apart": apply(["first", 0], ["bottleneck", 0], blend=["even", 0], **sides["bottleneck"]),
        "together": apply(["model", 0], ["both", 0], blend=["even", 0]),
    }
    found = samples(server, name, extra, {key: [key, 0] for key in ("apart", "together")})
    torch.testing.assert_close(found["together"], found["apart"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("start", "end", "stages"), [(0, 2, [0.0, 0.25]), (2, 4, [0.5, 0.75])])
def test_samplers_in_a_row_keep_to_their_part_of_denoising(server: ComfyServer, start: int, end: int, stages: list[float]) -> None:
    """As with the two experts of one model; each sampler is told its own steps only."""
    graph = stem("wan") | {
        "pair": pair_of(["model", 0]),
        "blended": apply(["model", 0], ["pair", 0]),
        "map": node("DualRealBlendMap", model=["blended", 0], latent=["sample", 0]),
        "show": node("PreviewAny", source=["map", 1]),
        "sample": node(
            "KSamplerAdvanced", model=["blended", 0], positive=["pos", 0], negative=["neg", 0], latent_image=["latent", 0], cfg=CFG,
            add_noise="enable", noise_seed=1, steps=4, sampler_name="euler", scheduler="simple", start_at_step=start, end_at_step=end,
            return_with_leftover_noise="enable",
        ),
    }  # fmt: skip
    assert json.loads(server.run(graph).text("show"))["stages"] == pytest.approx(stages, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_fixed_blend_overrides_the_learned_one(server: ComfyServer, name: str) -> None:
    """All of the share to one side equals that side alone at twice its strength under an even blend."""
    extra = {
        "pair": pair_of(["model", 0]),
        "all": node("DualRealFixedBlend", identity_share=1.0),
        "even": node("DualRealFixedBlend", identity_share=0.5),
        "learned": apply(["model", 0], ["pair", 0]),
        "identity": apply(["model", 0], ["pair", 0], blend=["all", 0]),
        "double": apply(["model", 0], ["pair", 0], blend=["even", 0], identity_strength=2.0, motion_strength=0.0),
    }
    found = samples(server, name, extra, {key: [key, 0] for key in ("learned", "identity", "double")})
    torch.testing.assert_close(found["identity"], found["double"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found["learned"], found["identity"], atol=1e-3)


@pytest.mark.parametrize("loader", ["LoraLoaderModelOnly", "LoraLoaderBypassModelOnly"])
@pytest.mark.parametrize("name", NAMES)
def test_stock_loras_before_or_after_give_the_same(server: ComfyServer, models: Path, name: str, loader: str) -> None:
    lora = write_stock_lora(models, name)
    extra = {
        "pair": pair_of(["model", 0]),
        "a": apply(["model", 0], ["pair", 0]),
        "pair-lora": node(loader, model=["a", 0], lora_name=lora, strength_model=1.0),
        "lora": node(loader, model=["model", 0], lora_name=lora, strength_model=1.0),
        "lora-pair": apply(["lora", 0], ["pair", 0]),
    }
    found = samples(server, name, extra, {key: [key, 0] for key in ("a", "lora", "lora-pair", "pair-lora")})
    assert found["lora-pair"].equal(found["pair-lora"])
    assert not found["lora-pair"].equal(found["a"]) and not found["lora-pair"].equal(found["lora"])


def write_stock_lora(models: Path, name: str) -> str:
    """A LoRA of noise on one layer of the first block, which the stock loader takes."""
    layer, width = STOCK_LAYERS[name]
    generator = torch.Generator().manual_seed(5)
    shapes = {"lora_A.weight": (2, width), "lora_B.weight": (width, 2)}
    path = models / "loras" / f"stock {name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    noise = {f"diffusion_model.{layer}.{key}": 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    safetensors.torch.save_file(noise, path)
    return path.name


def test_adapters_are_counted_in_memory(server: ComfyServer) -> None:
    graph = stem("wan") | {
        "pair": pair_of(["model", 0]),
        "blended": apply(["model", 0], ["pair", 0]),
        "carried": node("BenchCarried", model=["blended", 0], after=["sample", 0]),
    }
    run = server.run(graph | graphs.sampling("wan", ["blended", 0]))
    (carried,) = json.loads(run.text("carried"))
    assert carried["size"] > 100_000 and carried["dtypes"] == ["torch.float32"]


@pytest.mark.parametrize("weight_dtype", ["fp8_e4m3fn"])
def test_adapters_follow_the_dtype_of_the_input(server: ComfyServer, weight_dtype: str) -> None:
    graph = stem("wan") | {"pair": pair_of(["model", 0]), "blended": apply(["model", 0], ["pair", 0])}
    graph["model"]["inputs"]["weight_dtype"] = weight_dtype
    run = server.run(graph | graphs.sampling("wan", ["blended", 0]) | {"save": graphs.save(["sample", 0])})
    assert server.tensors(run)["0.samples"].isfinite().all()
