"""LoRA files and pair files on a real ComfyUI: exactness against its own loader, refusals, saving and loading."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import graphs
import pytest
import torch
from architectures import ARCHITECTURES
from comfy_run import PromptRejected, Run, RunFailed
from comfy_server import ComfyServer
from graphs import Graph, node
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dualreal_core.storage.inspection import describe

SIGMAS = [0.9, 0.4]
NAMES = list(ARCHITECTURES)

# Layers in the names of ComfyUI, with the names of diffusers where those are a whole layer too.
LAYERS = {
    "wan": {
        "blocks.0.self_attn.q": "blocks.0.attn1.to_q",
        "blocks.1.self_attn.o": "blocks.1.attn1.to_out.0",
        "blocks.1.cross_attn.k": "blocks.1.attn2.to_k",
        "blocks.2.ffn.0": "blocks.2.ffn.net.0.proj",
    },
    "cogvideox": {
        "blocks.0.q": "transformer_blocks.0.attn1.to_q",
        "blocks.1.attn_out": "transformer_blocks.1.attn1.to_out.0",
        "blocks.2.ff_proj": "transformer_blocks.2.ff.net.0.proj",
    },
    "ltxv": {
        "transformer_blocks.0.attn1.to_q": "transformer_blocks.0.attn1.to_q",
        "transformer_blocks.1.attn2.to_v": "transformer_blocks.1.attn2.to_v",
        "transformer_blocks.2.ff.net.2": "transformer_blocks.2.ff.net.2",
    },
    "hunyuan": {
        "double_blocks.0.img_attn.proj": "transformer_blocks.0.attn.to_out.0",
        "double_blocks.1.txt_mlp.0": "transformer_blocks.1.ff_context.net.0.proj",
        "double_blocks.2.img_mod.lin": "transformer_blocks.2.norm1.linear",
        "single_blocks.1.linear2": "single_transformer_blocks.1.proj_out",
    },
}
NAMINGS = {
    "comfyui": ("diffusion_model.{host}", ("lora_A", "lora_B"), ""),
    "kohya": ("lora_unet_{flat}", ("lora_down", "lora_up"), ""),
    "comfyui, down and up": ("diffusion_model.{host}", ("lora_down", "lora_up"), ""),
    "diffusers": ("transformer.{diffusers}", ("lora_A", "lora_B"), ""),
    "peft": ("base_model.model.{diffusers}", ("lora_A", "lora_B"), ""),
    "peft, named adapter": ("base_model.model.{diffusers}", ("lora_A", "lora_B"), ".default"),
}
WITH_ALPHA = ("kohya", "comfyui, down and up")


def matrices(models: Path, name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """(down, up, alpha) of each layer; ranks and alphas differ."""
    weights = load_file(models / "diffusion_models" / ARCHITECTURES[name].checkpoint)
    generator = torch.Generator().manual_seed(3)
    found = {}
    for index, layer in enumerate(LAYERS[name]):
        rows, columns = weights[f"{layer}.weight"].shape
        down, up = torch.randn(2 + index, columns, generator=generator), torch.randn(rows, 2 + index, generator=generator)
        found[layer] = 0.1 * down, 0.3 * up, (2.0 + index) * (0.5, 2.0)[index % 2]
    return found


def write_lora(models: Path, name: str, naming: str, file: str, extra: dict[str, torch.Tensor] | None = None) -> str:
    """The same LoRA whatever its naming; returns the name that lists show."""
    pattern, parts, suffix = NAMINGS[naming]
    tensors = dict(extra or {})
    for host, (down, up, alpha) in matrices(models, name).items():
        key = pattern.format(host=host, flat=host.replace(".", "_"), diffusers=LAYERS[name][host])
        has_alpha = naming in WITH_ALPHA
        tensors[f"{key}.{parts[0]}{suffix}.weight"] = down
        tensors[f"{key}.{parts[1]}{suffix}.weight"] = up if has_alpha else up * (alpha / down.shape[0])
        if has_alpha:
            tensors[f"{key}.alpha"] = torch.tensor(alpha)
    (models / "loras").mkdir(exist_ok=True)
    save_file(tensors, models / "loras" / file, {"modelspec.trigger_phrase": "sks cat"})
    return file


def load_lora(role: str, file: str) -> dict:
    return node(f"DualRealLoad{role.title()}Lora", model=["model", 0], lora=file)


def apply(pair: list, blend: list | None = None) -> dict:
    settings = {"identity_strength": 1.0, "motion_strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "negative": "adapted"}
    return node("DualRealApplyStageBlender", model=["model", 0], pair=pair, **settings, **({"blend": blend} if blend else {}))


def predictions(server: ComfyServer, name: str, extra: Graph, model: list) -> torch.Tensor:
    """Guided predictions at fixed sigmas, so that a difference comes from the model alone."""
    graph = graphs.text_to_latent(name) | extra
    return server.tensors(server.run(graph | graphs.raw_predictions(model, SIGMAS) | {"save": graphs.save(["sample", 0])}))["0.samples"]


def equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=NAMES)
def stock(request: pytest.FixtureRequest, server: ComfyServer, models: Path) -> tuple[str, torch.Tensor]:
    """A model's name, and its predictions with the LoRA as ComfyUI's own loader applies it at strength 1."""
    name = request.param
    file = write_lora(models, name, "comfyui", f"{name} stock.safetensors")
    merged = predictions(
        server, name, {"lora": node("LoraLoaderModelOnly", model=["model", 0], lora_name=file, strength_model=1.0)}, ["lora", 0]
    )
    plain = predictions(server, name, {}, ["model", 0])
    assert (merged - plain).abs().max() > 0.01
    return name, merged


@pytest.mark.parametrize("naming", NAMINGS)
def test_alone_it_acts_as_the_stock_loader(server: ComfyServer, models: Path, stock: tuple[str, torch.Tensor], naming: str) -> None:
    name, merged = stock
    file = write_lora(models, name, naming, f"{name} {naming}.safetensors")
    role = "identity" if naming in WITH_ALPHA else "motion"
    equal(predictions(server, name, {"lora": load_lora(role, file), "applied": apply(["lora", 0])}, ["applied", 0]), merged)


def test_parts_of_fused_layers_become_one_adapter(server: ComfyServer, models: Path) -> None:
    """HunyuanVideo in the names of diffusers against the fused layer in ComfyUI's."""
    generator = torch.Generator().manual_seed(4)
    parts, whole = {}, torch.zeros(3 * 128, 128)
    for index, part in enumerate(("to_q", "to_k", "to_v")):
        down, up = 0.1 * torch.randn(2, 128, generator=generator), torch.randn(128, 2, generator=generator)
        parts[f"transformer.transformer_blocks.1.attn.{part}.lora_A.weight"] = down
        parts[f"transformer.transformer_blocks.1.attn.{part}.lora_B.weight"] = up
        whole[128 * index : 128 * (index + 1)] = up @ down
    (models / "loras").mkdir(exist_ok=True)
    save_file(parts, models / "loras" / "parts.safetensors")
    save_file({"diffusion_model.double_blocks.1.img_attn.qkv.diff": whole}, models / "loras" / "whole.safetensors")
    loader = node("LoraLoaderModelOnly", model=["model", 0], lora_name="whole.safetensors", strength_model=1.0)
    merged = predictions(server, "hunyuan", {"lora": loader}, ["lora", 0])
    ours = {"lora": load_lora("motion", "parts.safetensors"), "applied": apply(["lora", 0])}
    equal(predictions(server, "hunyuan", ours, ["applied", 0]), merged)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_combined_loras_at_the_ends_and_the_middle_of_a_blend(server: ComfyServer, models: Path, share: float) -> None:
    """At a share of one half both act at strength 1; at an end one of them alone, at strength 2."""
    file = write_lora(models, "wan", "comfyui", "wan combined.safetensors")
    stack: Graph = {"one": node("LoraLoaderModelOnly", model=["model", 0], lora_name=file, strength_model=2.0)}
    ours = {
        "identity": load_lora("identity", file),
        "motion": load_lora("motion", file),
        "pair": node("DualRealCombine", identity=["identity", 0], motion=["motion", 0]),
        "blend": node("DualRealFixedBlend", identity_share=share),
        "applied": apply(["pair", 0], ["blend", 0]),
    }
    equal(predictions(server, "wan", ours, ["applied", 0]), predictions(server, "wan", stack, ["one", 0]))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"diffusion_model.blocks.9.ffn.0.lora_A.weight": (2, 256)}, r"deeper model .*: 1 of its 5 layers .* blocks up to 9"),
        ({"diffusion_model.blocks.1.ffn.0.lora_A.weight": (2, 256)}, r"only one of the two matrices of diffusion_model\.blocks\.1\.ffn\.0"),
        (
            {"diffusion_model.blocks.1.ffn.0.lora_A.weight": (2, 128), "diffusion_model.blocks.1.ffn.0.lora_B.weight": (512, 2)},
            r"ffn\.0 at 128 to 512 wide, but the layer is 256 to 512 wide: use the model",
        ),
        ({"diffusion_model.blocks.1.ffn.0.vera_lambda_b": (2,)}, "of the method VeRA, which is not known here"),
    ],
)
def test_what_is_no_whole_lora_of_this_model_is_refused(server: ComfyServer, models: Path, extra: dict[str, tuple], message: str) -> None:
    file = write_lora(models, "wan", "comfyui", "refused.safetensors", {key: torch.ones(shape) for key, shape in extra.items()})
    graph = graphs.afresh(graphs.text_to_latent("wan") | {"lora": load_lora("identity", file)}, "lora")
    with pytest.raises(RunFailed, match=message) as failed:
        server.run(graphs.through(graph, "applied", apply(["lora", 0])) | {"lora": graph["lora"]})
    assert failed.value.node_id == "lora"
    assert "refused.safetensors" in failed.value.message


BESIDE = {
    "diffusion_model.blocks.0.norm3.diff": (256,),
    "diffusion_model.blocks.1.norm3.diff_b": (256,),
    "diffusion_model.blocks.2.self_attn.norm_q.w_norm": (256,),
    "diffusion_model.head.head.lora_A.weight": (2, 256),
    "diffusion_model.head.head.lora_B.weight": (64, 2),
    "diffusion_model.patch_embedding.diff": (256, 16, 1, 2, 2),
    "diffusion_model.time_projection.1.diff_b": (1536,),
    "diffusion_model.blocks.0.self_attn.q.diff_b": (256,),
    "diffusion_model.blocks.2.ffn.2.diff": (256, 512),
}


def test_what_lies_outside_of_blocks_acts_as_by_the_stock_loader(server: ComfyServer, models: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    extra = {key: 0.05 * torch.randn(shape, generator=generator) for key, shape in BESIDE.items()}
    extra |= {f"diffusion_model.blocks.0.cross_attn.k_img.{part}.weight": torch.ones(2, 2) for part in ("lora_A", "lora_B")}
    file = write_lora(models, "wan", "comfyui", "beside.safetensors", extra)
    loader = node("LoraLoaderModelOnly", model=["model", 0], lora_name=file, strength_model=1.0)
    merged = predictions(server, "wan", {"lora": loader}, ["lora", 0])
    pair = {"lora": load_lora("identity", file), "other": load_lora("motion", file)}
    pair["pair"] = node("DualRealCombine", identity=["lora", 0], motion=["other", 0])
    both = pair | {"applied": apply(["pair", 0])}
    both["applied"]["inputs"]["motion_strength"] = 0.0  # whatever this side brings must then stay away
    equal(predictions(server, "wan", both, ["applied", 0]), merged)
    saved = graphs.afresh({"model": graphs.load_model("wan")} | pair, "lora")
    saved |= {"saved": node("DualRealSavePair", pair=["pair", 0], filename_prefix="beside")}
    run = server.run(saved)
    assert "with constant strength: norms, 3 layers" in run.text("lora") and "left out: img k/v" in run.text("lora")
    assert "is not in the file" in run.text("saved")


def test_a_lora_of_nan_is_refused(server: ComfyServer, models: Path) -> None:
    nan = {"diffusion_model.blocks.1.self_attn.q.lora_A.weight": (2, 256), "diffusion_model.blocks.1.self_attn.q.lora_B.weight": (256, 2)}
    file = write_lora(models, "wan", "comfyui", "nan.safetensors", {key: torch.full(shape, math.nan) for key, shape in nan.items()})
    graph = graphs.text_to_latent("wan") | {"lora": load_lora("motion", file)}
    graph |= {"show": node("DualRealSavePair", pair=["lora", 0], filename_prefix="never", consent="")}
    with pytest.raises(RunFailed, match=r"nan\.safetensors holds values that are no numbers"):
        server.run(graph)


def with_metadata(models: Path, file: str, metadata: dict[str, str], factor: float, change: Graph | None = None) -> str:
    """The Wan LoRA, all layers of rank 4, `factor` times as strong by what the file holds of `up`."""
    tensors = {}
    for host, (down, up, _) in matrices(models, "wan").items():
        key = f"diffusion_model.{host}"
        tensors[f"{key}.lora_A.weight"] = torch.cat([down, torch.zeros(4, down.shape[1])])[:4].contiguous()
        tensors[f"{key}.lora_B.weight"] = (torch.cat([up, torch.zeros(up.shape[0], 4)], 1)[:, :4] * factor).contiguous()
    save_file(tensors | (change or {}), models / "loras" / file, metadata)
    return file


def adapter_config(**fields: object) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in fields.items()})}


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        (adapter_config(r=4, lora_alpha=16), 4.0),
        (adapter_config(r=4, lora_alpha=4), 1.0),
        (adapter_config(r=4, lora_alpha=4, use_rslora=True), 2.0),
        (adapter_config(r=4, lora_alpha=1, alpha_pattern={r"blocks\.\d+\..*": 8}), 2.0),
        ({"ss_network_alpha": "16"}, 1.0),  # of a converted file, whose weights have it in them
    ],
)
def test_alpha_in_the_metadata_counts_as_on_the_command_line(server: ComfyServer, models: Path, metadata: dict, factor: float) -> None:
    (models / "loras").mkdir(exist_ok=True)
    recorded = with_metadata(models, "recorded.safetensors", metadata, 1.0)
    assert {layer["scaling"] for layer in describe(models / "loras" / recorded)["layers"]} == {factor}
    stock = with_metadata(models, "folded.safetensors", {}, factor)
    loader = node("LoraLoaderModelOnly", model=["model", 0], lora_name=stock, strength_model=1.0)
    merged = predictions(server, "wan", {"lora": loader}, ["lora", 0])
    ours = graphs.afresh({"lora": load_lora("identity", recorded), "applied": apply(["lora", 0])}, "lora")
    equal(predictions(server, "wan", ours, ["applied", 0]), merged)


def test_layers_of_rank_0_are_left_out_and_named(server: ComfyServer, models: Path, stock: tuple[str, torch.Tensor]) -> None:
    name, merged = stock
    layer = {"wan": "blocks.2.ffn.2", "hunyuan": "double_blocks.0.txt_mlp.2"}.get(name, "transformer_blocks.0.ff.net.2")
    shapes = {"lora_A.weight": (0, 256), "lora_B.weight": (256, 0)}
    empty = {f"diffusion_model.{layer}.{part}": torch.ones(shape) for part, shape in shapes.items()}
    empty[f"diffusion_model.{layer}.alpha"] = torch.tensor(4.0)
    file = write_lora(models, name, "comfyui", f"{name} with an empty layer.safetensors", empty)
    graph = graphs.afresh({"model": graphs.load_model(name), "lora": load_lora("identity", file)}, "lora")
    run = server.run(graph | {"show": node("DualRealSavePair", pair=["lora", 0], filename_prefix="never", consent="")})
    assert "left out 1 layer of rank 0" in run.text("lora") and layer in run.text("lora")
    equal(predictions(server, name, {"lora": load_lora("identity", file), "applied": apply(["lora", 0])}, ["applied", 0]), merged)


def test_a_lora_of_another_model_is_refused(server: ComfyServer, models: Path) -> None:
    file = write_lora(models, "ltxv", "comfyui", "other.safetensors")
    graph = graphs.text_to_latent("wan") | {"lora": load_lora("motion", file)}
    graph |= {"show": node("DualRealSavePair", pair=["lora", 0], filename_prefix="never", consent="")}
    with pytest.raises(RunFailed, match=r"other model.*transformer_blocks"):
        server.run(graph)


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="the node compiles by a C++ compiler, and there is no g++")
@pytest.mark.parametrize("first", ["compiled", "applied"])
def test_it_acts_behind_and_before_the_compile_node(server: ComfyServer, models: Path, first: str) -> None:
    file = write_lora(models, "wan", "comfyui", "wan compiled.safetensors")
    compiled = node("TorchCompileModel", model=["model" if first == "compiled" else "applied", 0], backend="inductor")
    applied = apply(["lora", 0])
    applied["inputs"]["model"] = ["compiled" if first == "compiled" else "model", 0]
    last = "applied" if first == "compiled" else "compiled"
    ours = predictions(server, "wan", {"lora": load_lora("identity", file), "applied": applied, "compiled": compiled}, [last, 0])
    loader = node("LoraLoaderModelOnly", model=["model", 0], lora_name=file, strength_model=1.0)
    torch.testing.assert_close(ours, predictions(server, "wan", {"stock": loader}, ["stock", 0]), rtol=1e-3, atol=1e-3)


def test_text_encoder_tensors_are_left_out(server: ComfyServer, models: Path, stock: tuple[str, torch.Tensor]) -> None:
    name, merged = stock
    text = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 8)}
    file = write_lora(models, name, "kohya", f"{name} with text.safetensors", text)
    equal(predictions(server, name, {"lora": load_lora("identity", file), "applied": apply(["lora", 0])}, ["applied", 0]), merged)


def save_graph(name: str, file: str, prefix: str, consent: str = "") -> Graph:
    saved = node("DualRealSavePair", pair=["lora", 0], filename_prefix=prefix, consent=consent)
    return graphs.afresh({"model": graphs.load_model(name), "lora": load_lora("identity", file), "saved": saved}, "saved")


def saved_name(run: Run) -> str:
    return run.text("saved").removeprefix("Saved as ").removesuffix(" in models/dualreal.")


def test_saved_pairs_can_be_loaded_and_are_never_overwritten(server: ComfyServer, models: Path, stock: tuple[str, torch.Tensor]) -> None:
    name, merged = stock
    file = write_lora(models, name, "comfyui", f"{name} saved.safetensors")
    names = [saved_name(server.run(save_graph(name, file, f"{name}/cat", "The owner agrees."))) for _ in range(2)]
    assert names == [f"{name}/cat_0000{number}_.safetensors" for number in (1, 2)]
    with safe_open(models / "dualreal" / names[0], "pt") as opened:
        header = json.loads(opened.metadata()["dualreal"])
    assert header["consent"] == "The owner agrees."
    assert header["training"]["lora"] == file
    assert header["prompts"] == {"trigger": "sks cat"}
    loaded = {"lora": node("DualRealLoadPair", name=names[1]), "applied": apply(["lora", 0])}
    equal(predictions(server, name, loaded, ["applied", 0]), merged)


@pytest.mark.parametrize("prefix", ["../out", "/tmp/out", "cats/../../out", "", "cats/", "..", "a\x00b"])
def test_prefixes_that_leave_the_folder_are_refused(server: ComfyServer, models: Path, prefix: str) -> None:
    file = write_lora(models, "wan", "comfyui", "wan prefix.safetensors")
    with pytest.raises(RunFailed, match="filename_prefix") as failed:
        server.run(save_graph("wan", file, prefix))
    assert failed.value.node_id == "saved"
    assert not list(models.glob("out*"))


def test_a_changed_file_is_loaded_again(server: ComfyServer, models: Path) -> None:
    file = write_lora(models, "wan", "comfyui", "wan changing.safetensors")
    name = saved_name(server.run(save_graph("wan", file, "changing")))
    graph = {"load": node("DualRealLoadPair", name=name), "saved": node("DualRealSavePair", pair=["load", 0], filename_prefix="copy")}
    assert "load" in server.run(graph).executed_nodes()
    assert "load" not in server.run(graph).executed_nodes()
    path = models / "dualreal" / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RunFailed, match="complete safetensors file"):
        server.run(graph)


@pytest.mark.parametrize("name", ["../loras/wan stock.safetensors", "/etc/passwd", "nothing.safetensors"])
def test_names_outside_the_folder_are_refused(server: ComfyServer, name: str) -> None:
    saved = node("DualRealSavePair", pair=["load", 0], filename_prefix="never")
    with pytest.raises(PromptRejected, match="not in"):
        server.run({"load": node("DualRealLoadPair", name=name), "saved": saved})
