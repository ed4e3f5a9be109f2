"""Save LoRA on a real ComfyUI: what the stock loader makes of its files, two experts, blends and steps, and what is refused.

Every model of `variants` is tried in `export_checks`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from comfy_run import RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_lora import apply, load_lora, matrices, predictions, write_lora

SIGMAS = "1.0, 0.9, 0.6, 0.2, 0.0"


@pytest.fixture(scope="module")
def sides(models: Path) -> Graph:
    """A pair of two LoRAs of Wan, the second one with other numbers."""
    identity = write_lora(models, "wan", "comfyui", "wan to save.safetensors")
    tensors = load_file(models / "loras" / identity)
    other = {name: tensor.flip(-1).contiguous() for name, tensor in tensors.items()}
    save_file(other, models / "loras" / "wan to save too.safetensors", {"modelspec.trigger_phrase": "dancing"})
    return {
        "model": graphs.load_model("wan"),
        "identity": load_lora("identity", identity),
        "motion": load_lora("motion", "wan to save too.safetensors"),
        "pair": node("DualRealCombine", identity=["identity", 0], motion=["motion", 0]),
    }


def save_lora(side: str = "mix", prefix: str = "saved/cat", form: str = "comfyui", **inputs: object) -> dict:
    defaults = {"identity_strength": 1.0, "motion_strength": 1.0, "dtype": "fp32"}
    return node("DualRealSaveLora", pair=["pair", 0], side=side, form=form, filename_prefix=prefix, **{**defaults, **inputs})


def files_in(models: Path, stem: str) -> list[str]:
    return sorted(path.name for path in (models / "loras" / stem).parent.glob(f"{Path(stem).name}*"))


def run_again(server: ComfyServer, graph: Graph) -> str:
    return server.run(graphs.afresh(graph, "saved")).text("saved")


@pytest.mark.parametrize("form", ["comfyui", pytest.param("kohya", marks=pytest.mark.thorough)])
def test_load_lora_does_what_the_pair_does(server: ComfyServer, models: Path, sides: Graph, form: str) -> None:
    strengths = {"identity_strength": 0.7, "motion_strength": 1.2}
    said = run_again(server, sides | {"saved": save_lora(form=form, prefix=f"saved/{form}", **strengths)})
    for part in (f"Wrote {form}_00001_.safetensors", "4 layers, ranks 4 to 10; ", "wire a blend"):
        assert part in said
    assert said.endswith("All in models/loras/saved.")
    loader = node("LoraLoaderModelOnly", model=["model", 0], lora_name=f"saved/{form}_00001_.safetensors", strength_model=1.0)
    stock = predictions(server, "wan", {"lora": loader}, ["lora", 0])
    applied = apply(["pair", 0])
    applied["inputs"] |= strengths
    ours = predictions(server, "wan", sides | {"applied": applied}, ["applied", 0])
    plain = predictions(server, "wan", {}, ["model", 0])
    assert (ours - stock).norm() < 1e-4 * (ours - plain).norm()
    assert "lora key not loaded" not in server.log_tail()


@pytest.mark.thorough
def test_every_save_has_a_number_of_its_own_and_words_of_its_sides(server: ComfyServer, models: Path, sides: Graph) -> None:
    for _ in range(2):
        run_again(server, sides | {"saved": save_lora("both", "numbered", "diffusers", dtype="bf16")})
    names = [f"numbered_0000{number}_{side}.safetensors" for number in (1, 2) for side in ("identity", "motion")]
    assert files_in(models, "numbered") == names
    for side, words in (("identity", "sks cat"), ("motion", "dancing")):
        with safe_open(models / "loras" / f"numbered_00001_{side}.safetensors", "pt") as file:
            metadata = file.metadata()
            assert all(name.startswith("transformer.blocks.") for name in file.keys())  # noqa: SIM118
        assert metadata["modelspec.trigger_phrase"] == words
        assert json.loads(metadata["dualreal_export"])["weights"][side] == [1.0, 1.0, 1.0]


def test_a_blend_becomes_its_mean_and_a_strength_for_each_step(server: ComfyServer, models: Path, sides: Graph) -> None:
    graph = sides | {
        "blend": node("DualRealScheduleBlend", preset="identity late"),
        "sigmas": node("ManualSigmas", sigmas=SIGMAS),
        "saved": save_lora("both", "blended", blend=["blend", 0], sigmas=["sigmas", 0]),
        **{f"shown {index}": node("PreviewAny", source=["saved", index]) for index in range(3)},
    }
    run = server.run(graphs.afresh(graph, "saved"))
    identity, motion, wan2gp = (run.text(f"shown {index}") for index in range(3))
    assert len(identity.split(", ")) == len(motion.split(", ")) == 4
    assert wan2gp == f"{identity.replace(', ', ',')} {motion.replace(', ', ',')}"
    shares = [float(one) for one in identity.split(", ")]
    assert shares == sorted(shares) and sum(shares) / 4 == pytest.approx(1.0, abs=1e-3)
    assert "strays by" in run.text("saved") and "Wan2GP" in run.text("saved")
    mean = json.loads(metadata_of(models, "blended_00001_identity.safetensors")["dualreal_export"])["weights"]["identity"]
    first = load_file(models / "loras" / "blended_00001_identity.safetensors")
    down, up, alpha = matrices(models, "wan")["blocks.0.self_attn.q"]
    expected = up @ down * alpha / len(down) * mean[0]
    held = first["diffusion_model.blocks.0.self_attn.q.lora_B.weight"] @ first["diffusion_model.blocks.0.self_attn.q.lora_A.weight"]
    torch.testing.assert_close(held, expected, rtol=1e-4, atol=1e-5)


def test_without_a_blend_strengths_are_1_at_each_step(server: ComfyServer, sides: Graph) -> None:
    graph = sides | {
        "sigmas": node("ManualSigmas", sigmas=SIGMAS),
        "saved": save_lora("both", "even", sigmas=["sigmas", 0], identity_strength=0.7),
        "shown": node("PreviewAny", source=["saved", 2]),
    }
    assert server.run(graphs.afresh(graph, "saved")).text("shown") == "1 1"


def test_two_experts_have_a_file_each(server: ComfyServer, models: Path) -> None:
    folder = models / "diffusion_models"
    checkpoints = {expert: f"wan2.2_saved_{expert}_noise_14B.safetensors" for expert in ("high", "low")}
    for checkpoint in checkpoints.values():
        shutil.copyfile(folder / ARCHITECTURES["wan"].checkpoint, folder / checkpoint)
    file = write_lora(models, "wan", "comfyui", "walk_high_noise.safetensors")
    tensors = {name: tensor * 2 if "lora_B" in name else tensor for name, tensor in load_file(models / "loras" / file).items()}
    save_file(tensors, models / "loras" / "walk_low_noise.safetensors")
    graph = {
        **{expert: node("UNETLoader", unet_name=checkpoint, weight_dtype="default") for expert, checkpoint in checkpoints.items()},
        "pair": node(
            "DualRealLoadTwoExpertLoras", model_high=["high", 0], model_low=["low", 0], role="motion", lora=file, partner="found by name"
        ),
        "saved": save_lora("motion", "walk/saved"),
    }
    said = run_again(server, graph)
    assert "4 layers of the high-noise expert" in said and "4 layers of the low-noise expert" in said
    for expert, factor in (("high", 1), ("low", 2)):
        held = load_file(models / "loras" / "walk" / f"saved_00001_{expert}_noise.safetensors")
        down, up, alpha = matrices(models, "wan")["blocks.2.ffn.0"]
        found = held["diffusion_model.blocks.2.ffn.0.lora_B.weight"] @ held["diffusion_model.blocks.2.ffn.0.lora_A.weight"]
        torch.testing.assert_close(found, up @ down * (alpha / len(down) * factor), rtol=1e-4, atol=1e-5)


def metadata_of(models: Path, file: str) -> dict[str, str]:
    with safe_open(models / "loras" / file, "pt") as opened:
        return opened.metadata()


def test_weights_that_a_run_used_are_taken_from_blend_map(server: ComfyServer, models: Path, sides: Graph) -> None:
    graph = graphs.text_to_latent("wan") | sides | {"blend": node("DualRealFixedBlend", identity_share=0.3)}
    graph |= {"applied": apply(["pair", 0], ["blend", 0])}
    graph |= graphs.sampling("wan", ["applied", 0])
    graph |= {
        "map": node("DualRealBlendMap", model=["applied", 0], latent=["sample", 0]),
        "saved": save_lora(prefix="recorded", blend_data=["map", 1]),
    }
    server.run(graphs.afresh(graph, "sample", "saved"))
    record = json.loads(metadata_of(models, "recorded_00001_.safetensors")["dualreal_export"])
    assert record["weights"]["identity"] == pytest.approx([0.6] * 3) and record["weights"]["motion"] == pytest.approx([1.4] * 3)
    assert record["blend"] == "data of Blend Map"


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"prefix": "../out"}, r"names no file in models/loras"),
        ({"blend": ["blend", 0], "blend_data": ["text", 0]}, "Both blend and blend_data"),
        ({"blend_data": ["text", 0]}, "no data of Blend Map"),
        ({"identity_strength": 0.0, "motion_strength": 0.0}, "nothing to write"),
    ],
)
def test_what_cannot_be_written_is_said(server: ComfyServer, models: Path, sides: Graph, inputs: dict, sentence: str) -> None:
    extra = {"blend": node("DualRealFixedBlend", identity_share=0.3), "text": node("PrimitiveString", value="nothing")}
    before = sorted((models / "loras").rglob("*"))
    with pytest.raises(RunFailed, match=sentence) as failed:
        server.run(sides | extra | {"saved": save_lora(**{"prefix": "not to be written", **inputs})})
    assert failed.value.node_id == "saved"
    assert sorted((models / "loras").rglob("*")) == before


def test_what_acts_outside_of_the_blocks_is_written_too(server: ComfyServer, models: Path, sides: Graph) -> None:
    generator = torch.Generator().manual_seed(8)
    weights = load_file(models / "diffusion_models" / ARCHITECTURES["wan"].checkpoint)
    extra = {
        "head.head.lora_A.weight": (2, 256), "head.head.lora_B.weight": (weights["head.head.weight"].shape[0], 2),
        "time_embedding.2.diff_b": (256,), "blocks.0.norm3.diff": (256,), "blocks.1.modulation.diff": (1, 6, 256),
    }  # fmt: skip
    tensors = {f"diffusion_model.{name}": 0.05 * torch.randn(shape, generator=generator) for name, shape in extra.items()}
    file = write_lora(models, "wan", "comfyui", "wan with more.safetensors", tensors)
    graph = {"model": graphs.load_model("wan"), "pair": load_lora("identity", file)}
    said = run_again(server, graph | {"saved": save_lora("identity", "with_more")})
    assert "at 1 weight outside of the blocks' layers, such as blocks.1.modulation." in said
    written = load_file(models / "loras" / "with_more_00001_.safetensors")
    assert {name.removeprefix("diffusion_model.") for name in written} >= set(extra) - {"blocks.1.modulation.diff"}
    less = write_lora(models, "wan", "comfyui", "wan less.safetensors", dict(list(tensors.items())[:-1]))
    files = (less, "with_more_00001_.safetensors")
    loaders = [node("LoraLoaderModelOnly", model=["model", 0], lora_name=name, strength_model=1.0) for name in files]
    stock = [predictions(server, "wan", {"lora": loader}, ["lora", 0]) for loader in loaders]
    plain = predictions(server, "wan", {}, ["model", 0])
    assert (stock[0] - stock[1]).norm() < 1e-4 * (stock[0] - plain).norm()
    said = run_again(server, graph | {"saved": save_lora("identity", "with_less", "diffusers")})
    assert "at 4 weights outside of the blocks' layers" in said
