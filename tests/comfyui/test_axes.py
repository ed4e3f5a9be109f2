"""A pair in either precision, beside each neighbour, however sampling is called: every latent against one that owes nothing to the pack.

What is expected is made by ComfyUI alone: a pair of LoRAs at known weights is the model with `W + sum(weight * B A)` in place of
`W`, so the test merges such checkpoints itself, one for each step's weights, and samples them without any pair.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import graphs
import pytest
import safetensors.torch
import torch
from comfy_server import ComfyServer
from graphs import Graph, node
from test_blending import apply, pair_of

from dualreal_core.families.wan import COMFY_WAN
from dualreal_core.method.pair import ROLES, iterate_sides
from dualreal_core.storage import load_pair

STEPS = 2
SCALE = 2.0
"""Of BenchPair: the sum of both weights."""
LATE = ((0.25, 0.75), (0.5, 0.5))
"""Shares of the schedule 'identity late' at the two sigmas of 2 steps, which lie at 0 and at half of denoising: (identity, motion)."""
CACHED_STEPS = 6
EVEN = (0.5, 0.5)
LORA = "beside the pair.safetensors"
HAS_NO_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="the node compiles by a C++ compiler, and there is no g++")
NEIGHBOURS = (
    "easycache",
    "stock lora",
    "bypass lora",
    "second pair",
    pytest.param("torch compile", marks=[pytest.mark.thorough, HAS_NO_COMPILER]),  # minutes; `test_compiled` takes seconds
)
PATTERNS = ("one sampler", "two halves", "cfg 1", "batch 2")
DTYPES = ("fp32", "bf16")
TOLERANCE = {"fp32": 1e-4, "bf16": 0.06}
"""Of the difference that pair and neighbour make; bf16 rounds the pair's updates apart from the weights that it rounds merged."""


@pytest.fixture(scope="module")
def merge(server: ComfyServer, models: Path) -> Callable[..., str]:
    """Writes tiny Wan with a pair merged at given weights (identity, motion), and maybe the stock LoRA: the checkpoint's name."""
    graph = {"model": graphs.load_model("wan"), "pair": pair_of(["model", 0], spread=0.15)}
    server.run(graph | {"keep": node("DualRealSavePair", pair=["pair", 0], filename_prefix="axes", consent="noise has no owner")})
    (path,) = (models / "dualreal").glob("axes*.safetensors")
    pair, _ = load_pair(path)
    lora = stock_lora(models)

    def write(weights: tuple[float, float], with_lora: bool = False) -> str:
        folder = models / "diffusion_models"
        tensors = safetensors.torch.load_file(folder / "tiny_wan.safetensors")
        for role, block, name, adapter in iterate_sides(pair):
            key = f"blocks.{block}.{COMFY_WAN.layer_paths.get(name, name)}.weight"
            tensors[key] = tensors[key] + SCALE * weights[ROLES.index(role)] * (adapter.up.weight @ adapter.down.weight).detach()
        for key in [key for key in lora if with_lora and "lora_A" in key]:
            place = key.removeprefix("diffusion_model.").replace("lora_A.", "")
            tensors[place] = tensors[place] + lora[key.replace("lora_A", "lora_B")] @ lora[key]
        file = f"merged {weights[0]} {weights[1]} {with_lora}.safetensors"
        safetensors.torch.save_file(tensors, folder / file)
        return file

    return write


def stock_lora(models: Path) -> dict[str, torch.Tensor]:
    """A LoRA of noise on layers of every block, beside and on those of the pair, also written for the stock loader."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    for layer in [f"blocks.{block}.{name}" for block in range(3) for name in ("self_attn.o", "self_attn.v", "cross_attn.o")]:
        tensors[f"diffusion_model.{layer}.lora_A.weight"] = torch.randn(4, 256, generator=generator) / 8
        tensors[f"diffusion_model.{layer}.lora_B.weight"] = torch.randn(256, 4, generator=generator) / 8
    (models / "loras").mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors, models / "loras" / LORA)
    return tensors


def part(model: str, pattern: str, steps: int, start: int, end: int, latent: str) -> dict:
    """Steps from `start` to `end` of `steps`."""
    return node(
        "KSamplerAdvanced", model=[model, 0], positive=["pos", 0], negative=["neg", 0], latent_image=[latent, 0],
        cfg=1.0 if pattern == "cfg 1" else 4.0, add_noise="enable" if start == 0 else "disable", noise_seed=1, steps=steps,
        sampler_name="euler", scheduler="simple", start_at_step=start, end_at_step=end,
        return_with_leftover_noise="enable" if end < steps else "disable",
    )  # fmt: skip


def chain(models: tuple[str, ...], pattern: str, steps: int, name: str) -> Graph:
    """As many samplers in a row as there are models, each for an equal part of the steps; the last is called `name`."""
    latent, each, nodes = "pair of latents" if pattern == "batch 2" else "latent", steps // len(models), {}
    for index, model in enumerate(models):
        key = name if index == len(models) - 1 else f"{name} {index}"
        nodes[key] = part(model, pattern, steps, index * each, (index + 1) * each, latent)
        latent = key
    return nodes | {f"save {name}": graphs.save([name, 0])}


def changed(neighbour: str, model: str) -> dict:
    """The neighbour's node on a model."""
    return {
        "easycache": node("EasyCache", model=[model, 0], reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False),
        "stock lora": node("LoraLoaderModelOnly", model=[model, 0], lora_name=LORA, strength_model=1.0),
        "bypass lora": node("LoraLoaderBypassModelOnly", model=[model, 0], lora_name=LORA, strength_model=1.0),
        "second pair": apply([model, 0], ["pair", 0], negative="adapted", blend=["blend", 0]),
        "torch compile": node("TorchCompileModel", model=[model, 0], backend="inductor"),
    }[neighbour]


def load(file: str, dtype: str, key: str) -> Graph:
    """A checkpoint as node `key`."""
    return {f"{key} file": node("UNETLoader", unet_name=file, weight_dtype="default"), key: cast([f"{key} file", 0], dtype)}


def cast(model: list, dtype: str) -> dict:
    return node("ModelComputeDtype", model=model, dtype=dtype)


@pytest.fixture(scope="module")
def latents(server: ComfyServer, models: Path, merge: Callable[..., str]) -> Callable[[str, str], dict[str, torch.Tensor]]:
    """Latents of all patterns for a precision and a neighbour, by '(found | expected | plain | alone) PATTERN'; sampled once."""
    made: dict[tuple[str, str], dict[str, torch.Tensor]] = {}

    def sample(dtype: str, neighbour: str) -> dict[str, torch.Tensor]:
        is_cached = neighbour == "easycache"
        steps, shares = (CACHED_STEPS, (EVEN,)) if is_cached else (STEPS, LATE)
        # a pair twice is a pair of twice the weights: both add to the same outputs what they make of the same inputs
        weights = [tuple(share * (1 + (neighbour == "second pair")) for share in step) for step in shares]
        even = node("DualRealFixedBlend", identity_share=0.5)
        graph = {key: graphs.text_to_latent("wan")[key] for key in ("model", "pos", "neg", "latent")} | {
            "pair of latents": graphs.empty_latent("wan", batch_size=2),
            "pair": pair_of(["model", 0], spread=0.15),
            "blend": even if is_cached else node("DualRealScheduleBlend", preset="identity late"),
            "base": cast(["model", 0], dtype),
            "alone": apply(["base", 0], ["pair", 0], negative="adapted", blend=["blend", 0]),
            "found": changed(neighbour, "alone"),
        }  # fmt: skip
        expected = []
        for index, step in enumerate(weights):
            graph |= load(merge(step, with_lora="lora" in neighbour), dtype, f"merged {index}")
            expected.append(f"merged {index}")
        if is_cached:  # what it skips depends on the model alone, so the merged one is cached as well
            graph["cached"] = changed(neighbour, "merged 0")
            expected = ["cached"]
        for pattern in PATTERNS:
            halves = 2 if pattern == "two halves" else 1
            graph |= chain(("found",) * halves, pattern, steps, f"found {pattern}")
            graph |= chain(("cached",) * halves if is_cached else tuple(expected), pattern, steps, f"expected {pattern}")
            for other in ("base", "alone"):
                graph |= chain((other,) * halves, pattern, steps, f"{other} {pattern}")
        begin = len(server.log())
        run = server.run(graph)
        if is_cached:
            assert server.log()[begin:].count("EasyCache - skipped 0/") == 0 < server.log()[begin:].count("EasyCache - skipped")
        return {key.removeprefix("save "): server.tensors(run, key)["0.samples"] for key in graph if key.startswith("save ")}

    def once(dtype: str, neighbour: str) -> dict[str, torch.Tensor]:
        if (dtype, neighbour) not in made:
            made[dtype, neighbour] = sample(dtype, neighbour)
        return made[dtype, neighbour]

    return once


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pair_and_neighbour_are_the_merged_model(
    latents: Callable[[str, str], dict[str, torch.Tensor]], dtype: str, neighbour: str, pattern: str
) -> None:
    """Compared by the difference that both make together; where the neighbour changes anything, the pair alone is further away."""
    found = latents(dtype, neighbour)
    expected, plain = found[f"expected {pattern}"], found[f"base {pattern}"]
    whole = (expected - plain).norm()
    off = (found[f"found {pattern}"] - expected).norm() / whole
    assert off < TOLERANCE[dtype]
    if neighbour != "torch compile":
        assert (found[f"alone {pattern}"] - expected).norm() / whole > 2 * TOLERANCE[dtype], "the neighbour makes no difference here"


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_halves_are_one_sampler(latents: Callable[[str, str], dict[str, torch.Tensor]], dtype: str, neighbour: str) -> None:
    """But for EasyCache, which begins anew with each sampler."""
    found = latents(dtype, neighbour)
    one, halves = found["found one sampler"], found["found two halves"]
    if neighbour == "easycache":
        assert not one.equal(halves)
    else:
        torch.testing.assert_close(halves, one, rtol=0, atol=1e-4 if dtype == "fp32" else 2e-2)
